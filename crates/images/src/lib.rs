//! Container images: registries, the content store, layers and snapshots.
//!
//! Knows nothing of the API.

use std::path::PathBuf;

/// How to authenticate to a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    #[default]
    Anonymous,
    /// User name and password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A registry token.
    Bearer(String),
}

/// An image whose layers are unpacked on this host.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The digest of its configuration: what Kubernetes calls the image id.
    pub id: String,
    /// `registry/repository@sha256:…` of the manifest; empty when loaded from an archive without one.
    pub digest: String,
    /// The names that lead to it here.
    pub names: Vec<String>,
    /// Its OCI configuration.
    pub config: oci_spec::image::ImageConfiguration,
    /// Unpacked layers, topmost first: overlay's lower directories.
    pub layers: Vec<PathBuf>,
    /// Bytes on disk.
    pub size: u64,
}

/// A container's writable layer over an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Overlay's lower directories, topmost first.
    pub lower: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// Overlay's work directory.
    pub work: PathBuf,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes to fetch, as far as known.
    pub total: u64,
    /// Bytes fetched.
    pub done: u64,
    /// Layers of the image.
    pub layers: usize,
    /// Layers unpacked.
    pub ready: usize,
}
