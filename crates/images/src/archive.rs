//! Image archives.
use crate::{Image, error::Result, pull::Puller};
use std::path::PathBuf;
impl Puller {
    /// Loads.
    pub async fn load(&self, archive: PathBuf) -> Result<Vec<Image>> {
        Err(crate::Error::Unsupported { what: archive.display().to_string() })
    }
}
