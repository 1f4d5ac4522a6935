//! Container images: registries, the content store, layers and snapshots.
//!
//! Knows nothing of the API. A pull resolves a [`Reference`] to a manifest, streams its layers through hash, decompression
//! and unpacking side by side, and keeps an image only when every digest is right and everything is on disk. Containers
//! stand on overlayfs: the image's layers, topmost first, and a writable [`Snapshot`].
//!
//! Guarantees: content is named by what it hashes to and never changes; a process killed at any moment leaves only staging
//! behind, which the next [`Images::open`] clears; nothing an image holds is written outside its own layer.
//! Not guaranteed: that disk content still is what it was when it was verified. Root can write there.

mod archive;
mod collect;
mod content;
mod credentials;
mod digest;
mod entry;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod image;
mod layer;
mod manifest;
mod merged;
mod pull;
mod reference;
mod registry;
mod snapshot;
mod unpack;

pub use collect::{Collected, Policy};
pub use credentials::Keyring;
pub use digest::Digest;
pub use error::{Error, Result};
pub use layer::Limits;
pub use manifest::Platform;
pub use reference::Reference;
pub use walk::Usage;

use content::Store;
use pull::{Puller, blocking};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::watch;

/// How images are pulled and kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host[:port]` of registries to speak plain HTTP to. Those on loopback need not be named.
    pub plain_http: Vec<String>,
    /// Asked before the registries themselves, in this order, and never given credentials.
    pub mirrors: Vec<Mirror>,
    /// Certificate authorities for registries, besides the host's own; PEM.
    pub ca: Option<String>,
    /// Layers fetched and unpacked at a time, over all pulls from a registry.
    pub parallel: usize,
    /// How long a registry may send nothing; next to nothing for three times as long.
    pub stall: Duration,
    /// What a layer may take.
    pub limits: Limits,
    /// Whose images are wanted.
    pub platform: Platform,
}

/// A registry's stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The registry as images name it: `docker.io`.
    pub registry: String,
    /// Where to ask instead: `https://HOST[:PORT]` or `http://HOST[:PORT]`.
    pub endpoint: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            plain_http: vec![],
            mirrors: vec![],
            ca: None,
            parallel: 4,
            stall: Duration::from_secs(30),
            limits: Limits::default(),
            platform: Platform::here(),
        }
    }
}

/// The images of one directory. Clones share it; so may other processes.
#[derive(Clone, Debug)]
pub struct Images {
    store: Arc<Store>,
    puller: Arc<Puller>,
}

impl Images {
    /// Opens `dir`, or makes it, and clears what killed processes left there. Blocks on the disk, briefly.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if another format is there, else the disk's.
    pub fn open(dir: &Path, config: Config) -> Result<Self> {
        let store = Arc::new(Store::open(dir)?);
        let puller = Arc::new(Puller::new(store.clone(), &config));
        Ok(Self { store, puller })
    }

    /// Asks the registry what `reference` is now, fetches what is missing of it and keeps it, durably.
    ///
    /// Pulls of the same image with the same credentials are one; a layer wanted by several pulls from a registry is fetched once. Dropping
    /// the future of the last one who waits ends the pull; layers finished by then are kept for the next.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Denied`] and [`Error::Unreachable`] with the registry's answer; [`Error::Stalled`];
    /// [`Error::Digest`], [`Error::Archive`], [`Error::TooLarge`], [`Error::Unsupported`], [`Error::Platform`] for what it
    /// sent; [`Error::DiskFull`].
    pub async fn pull(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        progress: &watch::Sender<Progress>,
    ) -> Result<Image> {
        self.puller.pull(reference, credentials, progress).await
    }

    /// The image that an id (`sha256:…`) or a name leads to here. Asks no registry.
    pub async fn get(&self, name: &str) -> Result<Option<Image>> {
        let (store, name) = (self.store.clone(), name.to_string());
        blocking(move || lookup(&store, &name)?.map_or(Ok(None), |id| store.find(&id))).await
    }

    /// All images, by name.
    pub async fn list(&self) -> Result<Vec<Image>> {
        let store = self.store.clone();
        blocking(move || store.list()).await
    }

    /// Takes away a name, and the image with its last one; or, given an id, the image with all its names. False if there
    /// was none. Layers go at the next [`Images::collect`]; containers that stand on them are not disturbed.
    pub async fn remove(&self, name: &str) -> Result<bool> {
        let (store, name) = (self.store.clone(), name.to_string());
        blocking(move || match name.parse::<Digest>() {
            Ok(id) => match store.record(&id)? {
                Some(record) => store.forget(&record).map(|()| true),
                None => Ok(false),
            },
            Err(_) => store.forget_name(&name.parse::<Reference>()?.to_string()),
        })
        .await
    }

    /// Loads the images of an OCI layout or `docker save` archive, plain, gzip or zstd.
    ///
    /// # Errors
    /// As for [`Images::pull`], as far as an archive can cause them.
    pub async fn load(&self, archive: &Path) -> Result<Vec<Image>> {
        self.puller.load(archive.to_path_buf()).await
    }

    /// Makes the writable layer `id` over `image`: empty, owned by root, its root and the directories that layers only imply
    /// with the image's own modes. One that is there for the same image is returned as it is.
    ///
    /// # Errors
    /// [`Error::Snapshot`] for an id that is no file name or is in use with another image; [`Error::NotFound`] when the image
    /// was removed meanwhile.
    pub async fn prepare(&self, image: &Image, id: &str) -> Result<Snapshot> {
        let (store, image, id) = (self.store.clone(), image.id.clone(), id.to_string());
        blocking(move || {
            let record = store.record(&image::parse_id(&image)?)?;
            let gone = || Error::NotFound { reference: image.clone(), registry_said: "no longer on this host".into() };
            store.prepare(&record.ok_or_else(gone)?, &id)
        })
        .await
    }

    /// The writable layer `id`.
    pub async fn snapshot(&self, id: &str) -> Result<Option<Snapshot>> {
        let (store, id) = (self.store.clone(), id.to_string());
        blocking(move || store.snapshot(&id)).await
    }

    /// Ids of all writable layers.
    pub async fn snapshots(&self) -> Result<Vec<String>> {
        let store = self.store.clone();
        blocking(move || store.snapshots()).await
    }

    /// Removes the writable layer `id`, whatever a container has made of it. Absent is done.
    pub async fn discard(&self, id: &str) -> Result<()> {
        let (store, id) = (self.store.clone(), id.to_string());
        blocking(move || store.discard_snapshot(&id)).await
    }

    /// What the writable layer `id` takes, as [`walk::usage`] counts it: one `stat` a file. Files that are deleted but still
    /// open are not seen.
    pub async fn usage(&self, id: &str, until: Instant) -> Result<Usage> {
        let (store, id) = (self.store.clone(), id.to_string());
        blocking(move || store.usage(&id, until)).await
    }

    /// Removes images as `policy` says, and whatever belongs to no image and no snapshot. `in_use` holds image ids.
    /// Does nothing while a pull is under way.
    pub async fn collect(&self, policy: Policy, in_use: HashSet<String>) -> Result<Collected> {
        let store = self.store.clone();
        blocking(move || store.collect(&policy, &in_use, SystemTime::now())).await
    }
}

fn lookup(store: &Store, name: &str) -> Result<Option<Digest>> {
    match name.parse::<Digest>() {
        Ok(id) => Ok(Some(id)),
        Err(_) => store.resolve(&name.parse::<Reference>()?.to_string()),
    }
}

/// How to authenticate to a registry.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
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
