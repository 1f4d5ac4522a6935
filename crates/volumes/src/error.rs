//! What volumes could not do.

use std::{io, path::Path};

/// What volumes could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name or path from outside is refused.
    #[error("path {name:?} {why}")]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A hostPath is not what its type asks for.
    #[error("hostPath type check failed: {path} is not {want}")]
    HostPath {
        /// The path on the host.
        path: String,
        /// What it should be.
        want: &'static str,
    },
    /// The subPath does not exist in a volume that cannot be written.
    #[error("subPath {0:?} does not exist in the volume")]
    NoSubPath(String),
    /// A mount is still there, so nothing below it was removed.
    #[error("{0} is still mounted; not removed")]
    Mounted(String),
    /// The host refused.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

/// The result of a volume operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that went wrong in a clean-up that goes on after a fault.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Faults(pub Vec<Error>);

impl Faults {
    pub(crate) fn note<T>(&mut self, result: Result<T>) {
        self.0.extend(result.err());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_result(self) -> std::result::Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

/// Says what was done, to what, in an error.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|e| Error::Io { doing, path: path.display().to_string(), source: e.into() })
    }
}
