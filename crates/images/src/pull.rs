//! Pulls: from a reference to an image that is unpacked, verified and synced.

use crate::{
    Config, Credentials, Image, Progress, Reference,
    content::Store,
    digest::Digest,
    error::{Error, Result},
    image::New,
    layer::{Expected, Limits},
    manifest::{Descriptor, INDEX_DEPTH, Manifest, Platform, choose},
    registry::{Registries, Session, verify},
};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, Shared, WeakShared, try_join_all};
use oci_spec::image::ImageConfiguration;
use std::{
    collections::HashMap,
    hash::Hash,
    io::{self, BufRead, Read},
    sync::{Arc, Mutex, Weak},
};
use tokio::sync::{Semaphore, mpsc, watch};

/// Chunks under way between the network and the unpacking of a layer.
const CHUNKS: usize = 16;

/// What pulls need and share.
#[derive(Debug)]
pub struct Puller {
    store: Arc<Store>,
    registries: Registries,
    pub platform: Platform,
    pub limits: Limits,
    /// How many layers of a registry are fetched and unpacked at a time. By registry, as all that waits is: one that takes
    /// its time shall hold up nobody else.
    parallel: usize,
    slots: Keyed<String, Semaphore>,
    layers: Keyed<(String, Digest), tokio::sync::Mutex<()>>,
    flights: Mutex<HashMap<Key, Flight>>,
}

/// Pulls that are one: the same image for the same rights.
type Key = (Reference, Credentials);
type Outcome = BoxFuture<'static, Result<Image>>;
/// A pull under way; it ends with the last of those who hold it strongly.
type Flight = (WeakShared<Outcome>, watch::Receiver<Progress>);

impl Puller {
    pub fn new(store: Arc<Store>, config: &Config) -> Self {
        Self {
            store,
            registries: Registries::new(config),
            platform: config.platform.clone(),
            limits: config.limits,
            parallel: config.parallel.max(1),
            slots: Keyed::default(),
            layers: Keyed::default(),
            flights: Mutex::default(),
        }
    }

    /// Joins a pull that is under way, or starts one. It goes on as long as anyone waits for it.
    pub async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        credentials: &Credentials,
        progress: &watch::Sender<Progress>,
    ) -> Result<Image> {
        let (flight, mut seen) = self.join(reference, credentials);
        tokio::pin!(flight);
        loop {
            tokio::select! {
                biased;
                done = &mut flight => {
                    progress.send_replace(*seen.borrow());
                    return done;
                }
                Ok(()) = seen.changed() => { progress.send_replace(*seen.borrow_and_update()); }
            }
        }
    }

    fn join(
        self: &Arc<Self>,
        reference: &Reference,
        credentials: &Credentials,
    ) -> (Shared<Outcome>, watch::Receiver<Progress>) {
        let key = (reference.clone(), credentials.clone());
        let mut flights = self.flights.lock().unwrap_or_else(|e| e.into_inner());
        flights.retain(|_, (flight, _)| flight.upgrade().is_some());
        if let Some((flight, seen)) = flights.get(&key)
            && let Some(flight) = flight.upgrade()
            && flight.peek().is_none()
        {
            return (flight, seen.clone());
        }
        let (progress, seen) = watch::channel(Progress::default());
        let (puller, (reference, credentials)) = (self.clone(), key.clone());
        let flight = async move { puller.run(&reference, &credentials, &progress).await }.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, (weak, seen.clone()));
        }
        (flight, seen)
    }

    async fn run(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        progress: &watch::Sender<Progress>,
    ) -> Result<Image> {
        let (session, resolved) = self.find(reference, credentials).await?;
        let Resolved { digest, manifests, config, layers } = resolved;
        let config = self.configuration(&session, &config).await?;
        let layers = plan(&config, &layers, &self.platform, &reference.to_string())?;
        progress.send_modify(|p| {
            p.total = layers.iter().map(|(_, d)| d.size).sum();
            p.layers = layers.len();
        });

        let shared = self.blocking(|store| store.share()).await?;
        // The largest first, so that no slot is left to work alone at the end.
        let mut order: Vec<_> = layers.iter().collect();
        order.sort_by_key(|(_, d)| std::cmp::Reverse(d.size));
        try_join_all(order.into_iter().map(|(expected, blob)| self.layer(&session, expected, blob, progress))).await?;

        let at = reference.at(&digest);
        let new = New {
            config,
            manifests,
            digest: at.to_string(),
            names: vec![reference.to_string(), at.to_string()],
            layers: layers.into_iter().map(|(expected, _)| expected.diff_id).collect(),
        };
        let image = self.blocking(move |store| store.commit(new)).await;
        drop(shared);
        image
    }

    /// The first of a registry's mirrors, or itself, that has the image.
    async fn find(&self, reference: &Reference, credentials: &Credentials) -> Result<(Session, Resolved)> {
        let mut first: Option<Error> = None;
        for session in self.registries.sessions(reference, credentials)? {
            match self.resolve(&session, reference).await {
                Ok(resolved) => return Ok((session, resolved)),
                Err(error) => {
                    tracing::debug!(%reference, %error, "not from here");
                    // A mirror that does not answer says more than a registry that cannot be reached from here at all.
                    first = Some(match (first, error) {
                        (Some(first @ Error::Unreachable { .. }), Error::Unreachable { .. }) => first,
                        (_, error) => error,
                    });
                }
            }
        }
        Err(first.unwrap_or_else(|| Error::NotFound { reference: reference.to_string(), registry_said: String::new() }))
    }

    /// Follows indexes down to this platform's manifest.
    async fn resolve(&self, session: &Session, reference: &Reference) -> Result<Resolved> {
        let asked = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_string(),
        };
        let (mut bytes, mut kind) = session.manifest(&asked).await?;
        if let Some(digest) = reference.digest() {
            verify("manifest", &bytes, digest)?;
        }
        let digest = Digest::of(&bytes);
        let mut manifests = vec![];
        for _ in 0..=INDEX_DEPTH {
            let manifest = Manifest::parse(&bytes, &kind)?;
            manifests.push(bytes.to_vec());
            match manifest {
                Manifest::Image { config, layers } => return Ok(Resolved { digest, manifests, config, layers }),
                Manifest::Index(entries) => {
                    let entry = choose(&entries, &self.platform, &reference.to_string())?;
                    (bytes, kind) = session.manifest(&entry.digest.to_string()).await?;
                    verify("manifest", &bytes, &entry.digest)?;
                }
            }
        }
        Err(Error::TooLarge { what: "index in index".into(), limit: INDEX_DEPTH as u64 })
    }

    async fn configuration(&self, session: &Session, config: &Descriptor) -> Result<Vec<u8>> {
        match self.store.get_blob(&config.digest) {
            Ok(Some(bytes)) => Ok(bytes),
            _ => Ok(session.blob("image configuration", config).await?.to_vec()),
        }
    }

    /// Makes sure of one layer. Whoever else wants it at the same time waits here, and then finds it.
    async fn layer(
        &self,
        session: &Session,
        expected: &Expected,
        blob: &Descriptor,
        progress: &watch::Sender<Progress>,
    ) -> Result<()> {
        let _only = self.only(session.registry(), expected).await;
        if self.store.find_layer(&expected.diff_id)?.is_some() {
            progress.send_modify(|p| p.done += blob.size);
        } else {
            let _slot = self.slot(session.registry()).await;
            let (chunks, source) = mpsc::channel(CHUNKS);
            let download = session.download(blob, chunks, |n| progress.send_modify(|p| p.done += n));
            let unpack = self.unpack(expected, move || Chunks { source, current: Bytes::new() });
            let (downloaded, unpacked) = tokio::join!(download, unpack);
            // A broken download also fails the unpacking, and is the better reason.
            downloaded.and(unpacked)?;
        }
        progress.send_modify(|p| p.ready += 1);
        Ok(())
    }

    /// Makes sure of one layer that is at hand.
    pub async fn add<R: BufRead>(
        &self,
        expected: &Expected,
        source: impl FnOnce() -> R + Send + 'static,
    ) -> Result<()> {
        let _only = self.only("", expected).await;
        if self.store.find_layer(&expected.diff_id)?.is_some() {
            return Ok(());
        }
        let _slot = self.slot("").await;
        self.unpack(expected, source).await
    }

    async fn only(&self, registry: &str, expected: &Expected) -> tokio::sync::OwnedMutexGuard<()> {
        let key = (registry.to_string(), expected.diff_id.clone());
        self.layers.get(&key, Default::default).lock_owned().await
    }

    async fn slot(&self, registry: &str) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let slots = self.slots.get(&registry.to_string(), || Semaphore::new(self.parallel));
        slots.acquire_owned().await.ok()
    }

    async fn unpack<R: BufRead>(&self, expected: &Expected, source: impl FnOnce() -> R + Send + 'static) -> Result<()> {
        let (expected, limits) = (expected.clone(), self.limits);
        self.blocking(move |store| store.add_layer(source(), &expected, &limits)).await
    }

    /// Works on the store, off the reactor.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.store.clone();
        blocking(move || work(&store)).await
    }
}

/// Runs blocking work off the reactor.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::io("background work", io::Error::other(e))))
}

struct Resolved {
    digest: Digest,
    manifests: Vec<Vec<u8>>,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Matches a manifest's layers with its configuration's DiffIDs, bottom first, and both with this machine.
pub fn plan<'a>(
    config: &[u8],
    layers: &'a [Descriptor],
    platform: &Platform,
    reference: &str,
) -> Result<Vec<(Expected, &'a Descriptor)>> {
    let config = read_config(config, platform, reference)?;
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != layers.len() {
        let reason = format!("has {} layers, its configuration {}", layers.len(), diff_ids.len());
        return Err(Error::Archive { what: "manifest".into(), entry: String::new(), reason });
    }
    let pair = |(diff_id, blob): (&String, &'a Descriptor)| {
        let compression = blob.compression()?;
        Ok((
            Expected {
                digest: Some(blob.digest.clone()),
                size: blob.size,
                diff_id: parse_diff_id(diff_id)?,
                compression,
            },
            blob,
        ))
    };
    diff_ids.iter().zip(layers).map(pair).collect()
}

/// An image configuration that this machine can run.
pub fn read_config(config: &[u8], platform: &Platform, reference: &str) -> Result<ImageConfiguration> {
    let config: ImageConfiguration = serde_json::from_slice(config).map_err(|e| {
        Error::archive("image configuration", b"", crate::error::printable(e.to_string().as_bytes(), 200))
    })?;
    let offered = Platform { os: config.os().to_string(), architecture: config.architecture().to_string() };
    if offered != *platform {
        return Err(Error::Platform {
            reference: reference.into(),
            wanted: platform.to_string(),
            offered: offered.to_string(),
        });
    }
    Ok(config)
}

/// A DiffID of a configuration.
pub fn parse_diff_id(text: &str) -> Result<Digest> {
    text.parse().map_err(|reason| Error::archive("image configuration", text.as_bytes(), reason))
}

/// Chunks from the network as a blocking reader. Their early end is an end of file: the size then tells.
struct Chunks {
    source: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            self.current = self.source.blocking_recv().unwrap_or_default();
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current = self.current.split_off(amount);
    }
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let n = available.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

/// A lock for each key, kept only while someone holds or awaits it.
#[derive(Debug)]
struct Keyed<K, L>(Mutex<HashMap<K, Weak<L>>>);

impl<K, L> Default for Keyed<K, L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone, L> Keyed<K, L> {
    fn get(&self, key: &K, new: impl FnOnce() -> L) -> Arc<L> {
        let mut locks = self.0.lock().unwrap_or_else(|e| e.into_inner());
        locks.retain(|_, lock| lock.strong_count() > 0);
        locks.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let lock = Arc::new(new());
            locks.insert(key.clone(), Arc::downgrade(&lock));
            lock
        })
    }
}
