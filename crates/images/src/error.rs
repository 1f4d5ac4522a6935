//! What can go wrong, in words that tell the user what to do; the registry's own answer is kept.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image cannot be had. Cheap to clone, for one pull may have many waiters.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Not a reference to an image.
    #[error("image name {given:?}: {reason}")]
    BadReference {
        /// As it was given, shortened.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A Docker configuration file that cannot be read.
    #[error("registry credentials: {reason}")]
    BadCredentials {
        /// What is wrong with it; never holds a secret.
        reason: String,
    },
    /// The registry has no such image.
    #[error("image {reference} not found; the registry said: {registry_said}")]
    NotFound {
        /// The image.
        reference: String,
        /// The registry's answer.
        registry_said: String,
    },
    /// The registry does not let us have the image.
    #[error("access to image {reference} denied; the registry said: {registry_said}")]
    Denied {
        /// The image.
        reference: String,
        /// The registry's answer.
        registry_said: String,
    },
    /// The registry cannot be reached, or is in trouble of its own.
    #[error("registry {registry} not available: {registry_said}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// Its answer, or the transport's.
        registry_said: String,
    },
    /// The registry stopped sending, again and again.
    #[error("registry {registry} sent nothing for {after:?}, several times over")]
    Stalled {
        /// Host and port.
        registry: String,
        /// How long each wait was.
        after: Duration,
    },
    /// Content is not what its digest promises. Nothing of it was kept.
    #[error("{what}: expected {expected}, got {found}")]
    Digest {
        /// A manifest, configuration or layer.
        what: String,
        /// The digest or size promised.
        expected: String,
        /// What came.
        found: String,
    },
    /// A layer or image archive that is broken or hostile. Nothing of it was kept.
    #[error("{what}: entry {entry:?}: {reason}")]
    Archive {
        /// The layer or archive.
        what: String,
        /// The entry at fault, shortened; empty when it is the archive itself.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than we are willing to take.
    #[error("{what}: larger than the limit of {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// Well formed, but nothing we serve.
    #[error("not supported: {what}")]
    Unsupported {
        /// The feature.
        what: String,
    },
    /// The image exists, but not for this machine.
    #[error("image {reference} has no {wanted} variant; it has: {offered}")]
    Platform {
        /// The image.
        reference: String,
        /// This machine's platform.
        wanted: String,
        /// Those of the index.
        offered: String,
    },
    /// No room left (or no inodes, or no quota) where images are kept.
    #[error("disk full: {}", path.display())]
    DiskFull {
        /// The directory of the content store.
        path: PathBuf,
    },
    /// A container id that cannot name a directory, or names a snapshot of another image.
    #[error("snapshot {id:?}: {reason}")]
    Snapshot {
        /// The id.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The disk or kernel failed us.
    #[error("{what}: {source}")]
    Io {
        /// What was done, to what.
        what: String,
        /// The kernel's answer.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// An I/O error, with a full disk told apart.
    pub(crate) fn io(what: impl Into<String>, e: impl Into<io::Error>) -> Self {
        let (what, e) = (what.into(), e.into());
        match e.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Error::DiskFull { path: what.into() },
            _ => Error::Io { what, source: Arc::new(e) },
        }
    }

    /// An archive at fault. Names are shortened and printable: they come from outside and go to terminals.
    pub(crate) fn archive(what: &str, entry: &[u8], reason: impl Into<String>) -> Self {
        Error::Archive { what: what.into(), entry: printable(entry, 200), reason: reason.into() }
    }

    /// Whether another try, later, may well succeed without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::Stalled { .. })
    }
}

/// Text of others, made fit for a log or a terminal: at most `most` characters, control characters dropped.
pub(crate) fn printable(text: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * most)]);
    let mut out: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
    if out.len() < text.len() && out.chars().count() == most {
        out.push('…');
    }
    out
}
