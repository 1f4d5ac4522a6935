//! Image archives: OCI layouts in a tar, and what `docker save` and `podman save` write.
//!
//! The archive is indexed once and then read in place; layers go the same way as those of a registry.

use crate::{
    Image, Reference,
    content::{Store, at},
    digest::Digest,
    entry::{self, Kind},
    error::{Error, Result, printable},
    image::New,
    layer::{Expected, lift},
    manifest::{Compression, Descriptor, INDEX_DEPTH, LAYER_LIMIT, MANIFEST_LIMIT, Manifest, Platform, choose},
    pull::{Puller, parse_diff_id, plan, read_config},
    registry::verify,
};
use futures::future::try_join_all;
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The most entries of an archive.
const ENTRY_LIMIT: u64 = 100_000;
/// Annotations that name an image of a layout, containerd's full one first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

impl Puller {
    /// Loads every image of an archive, all or, after an error, only some.
    pub async fn load(&self, path: PathBuf) -> Result<Vec<Image>> {
        let (platform, limit) = (self.platform.clone(), self.limits.bytes);
        let open = move |store: &Store| {
            let archive = Archive::open(&path, &store.stage(), limit)?;
            let found = archive.images(&platform)?;
            Ok((Arc::new(archive), found, store.share()?))
        };
        let (archive, found, shared) = self.blocking(open).await?;
        let mut images = Vec::new();
        for image in found {
            try_join_all(image.layers.iter().map(|(expected, section)| {
                let source = archive.clone().section(*section);
                self.add(expected, move || BufReader::with_capacity(256 << 10, source))
            }))
            .await?;
            let layers = image.layers.into_iter().map(|(expected, _)| expected.diff_id).collect();
            let new = New {
                config: image.config,
                manifests: image.manifests,
                digest: image.digest,
                names: image.names,
                layers,
            };
            images.push(self.blocking(move |store| store.commit(new)).await?);
        }
        drop(shared);
        Ok(images)
    }
}

/// An image of an archive, not yet loaded.
struct Found {
    config: Vec<u8>,
    manifests: Vec<Vec<u8>>,
    digest: String,
    names: Vec<String>,
    layers: Vec<(Expected, Section)>,
}

/// Where an entry's bytes are.
type Section = (u64, u64);

struct Archive {
    what: String,
    file: File,
    entries: HashMap<String, Place>,
}

enum Place {
    At(Section),
    /// `docker save` used to write a layer once and link to it.
    Link(String),
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    /// Opens an archive. A compressed one is first unpacked into `stage`, which is unlinked at once.
    fn open(path: &Path, stage: &Path, limit: u64) -> Result<Self> {
        let failed = |e| at(path, e);
        let mut file = File::open(path).map_err(failed)?;
        let what = path.display().to_string();
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::archive(&what, b"", "is not a file"));
        }
        let compression = sniff(&file);
        if compression != Compression::None {
            let mut plain =
                File::options().read(true).write(true).create_new(true).open(stage).map_err(|e| at(stage, e))?;
            std::fs::remove_file(stage).map_err(|e| at(stage, e))?;
            let source = BufReader::with_capacity(256 << 10, file);
            let mut plain_bytes: Box<dyn Read> = match compression {
                Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
                _ => Box::new(zstd::stream::read::Decoder::with_buffer(source).map_err(failed)?),
            };
            if io::copy(&mut plain_bytes.by_ref().take(limit + 1), &mut plain).map_err(|e| lift(e, &what))? > limit {
                return Err(Error::TooLarge { what: format!("{what}: unpacked bytes"), limit });
            }
            plain.seek(SeekFrom::Start(0)).map_err(|e| at(stage, e))?;
            file = plain;
        }
        let entries = index(&file, &what)?;
        Ok(Self { what, file, entries })
    }

    fn images(&self, platform: &Platform) -> Result<Vec<Found>> {
        if self.entries.contains_key("manifest.json") {
            let saved: Vec<Saved> = self.json("manifest.json")?;
            return saved.into_iter().map(|s| self.saved(s, platform)).collect();
        }
        if !self.entries.contains_key("index.json") {
            return Err(self.broken("has neither index.json nor manifest.json: not an image archive"));
        }
        let Manifest::Index(top) = Manifest::parse(&self.small("index.json")?, "")? else {
            return Err(self.broken("index.json is no index"));
        };
        top.iter().map(|descriptor| self.laid_out(descriptor, platform)).collect()
    }

    /// An image of an OCI layout.
    fn laid_out(&self, top: &Descriptor, platform: &Platform) -> Result<Found> {
        let annotated = NAMES.iter().find_map(|n| top.annotations.get(*n));
        let name: Option<Reference> = annotated.and_then(|n| n.parse().ok());
        let label = name.as_ref().map_or_else(|| top.digest.to_string(), |n| n.to_string());
        let (mut manifests, mut descriptor) = (Vec::new(), top.clone());
        for _ in 0..=INDEX_DEPTH {
            let bytes = self.blob(&descriptor)?;
            let manifest = Manifest::parse(&bytes, &descriptor.media_type)?;
            manifests.push(bytes);
            match manifest {
                Manifest::Index(entries) => descriptor = choose(&entries, platform, &label)?.clone(),
                Manifest::Image { config, layers } => {
                    let config = self.blob(&config)?;
                    let plan = plan(&config, &layers, platform, &label)?;
                    let place = |(expected, blob): (Expected, &Descriptor)| {
                        Ok((expected, self.find(&blob_path(&blob.digest))?))
                    };
                    let layers = plan.into_iter().map(place).collect::<Result<_>>()?;
                    let digest = name.as_ref().map(|n| n.at(&top.digest).to_string());
                    let names = name.map(|n| n.to_string()).into_iter().chain(digest.clone()).collect();
                    return Ok(Found { config, manifests, digest: digest.unwrap_or_default(), names, layers });
                }
            }
        }
        Err(Error::TooLarge { what: format!("{}: index in index", self.what), limit: INDEX_DEPTH as u64 })
    }

    /// An image of a `docker save` archive: no manifest, so layers have DiffIDs only.
    fn saved(&self, saved: Saved, platform: &Platform) -> Result<Found> {
        let names = saved.repo_tags.unwrap_or_default();
        let names = names.iter().map(|n| n.parse().map(|r: Reference| r.to_string())).collect::<Result<Vec<_>>>()?;
        let config = self.small(&saved.config)?;
        let parsed = read_config(&config, platform, names.first().map_or(&saved.config, |n| n))?;
        let diff_ids = parsed.rootfs().diff_ids();
        if diff_ids.len() != saved.layers.len() {
            return Err(self.broken("manifest.json and the configuration have not as many layers"));
        }
        if diff_ids.len() > LAYER_LIMIT {
            return Err(Error::TooLarge { what: "layers of an image".into(), limit: LAYER_LIMIT as u64 });
        }
        let layer = |(diff_id, path): (&String, &String)| {
            let section = self.find(path)?;
            let compression = sniff_at(&self.file, section.0);
            Ok((Expected { digest: None, size: section.1, diff_id: parse_diff_id(diff_id)?, compression }, section))
        };
        let layers = diff_ids.iter().zip(&saved.layers).map(layer).collect::<Result<_>>()?;
        Ok(Found { config, manifests: vec![], digest: String::new(), names, layers })
    }

    fn find(&self, name: &str) -> Result<Section> {
        match self.entries.get(name) {
            Some(Place::At(section)) => Ok(*section),
            // One step only, so that links in a ring end.
            Some(Place::Link(to)) => match self.entries.get(to) {
                Some(Place::At(section)) => Ok(*section),
                _ => Err(Error::archive(&self.what, name.as_bytes(), "links to nothing in the archive")),
            },
            None => Err(Error::archive(&self.what, name.as_bytes(), "is missing")),
        }
    }

    fn small(&self, name: &str) -> Result<Vec<u8>> {
        let (start, size) = self.find(name)?;
        if size > MANIFEST_LIMIT {
            return Err(Error::TooLarge {
                what: format!("{}: bytes of {}", self.what, printable(name.as_bytes(), 100)),
                limit: MANIFEST_LIMIT,
            });
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, start).map_err(|e| lift(e, &self.what))?;
        Ok(bytes)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.small(name)?)
            .map_err(|e| Error::archive(&self.what, name.as_bytes(), printable(e.to_string().as_bytes(), 200)))
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.small(&blob_path(&descriptor.digest))?;
        verify(&self.what, &bytes, &descriptor.digest)?;
        Ok(bytes)
    }

    fn broken(&self, reason: &str) -> Error {
        Error::archive(&self.what, b"", reason)
    }

    fn section(self: Arc<Self>, (at, size): Section) -> SectionReader {
        SectionReader { archive: self, at, left: size }
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What is read of an archive before its layers, for `fuzz/`.
#[cfg(fuzzing)]
pub fn parse(path: &Path, stage: &Path) {
    let _refused = Archive::open(path, stage, 1 << 20).and_then(|archive| archive.images(&Platform::here()).map(drop));
}

/// Names and places of a tar's files.
fn index(file: &File, what: &str) -> Result<HashMap<String, Place>> {
    let mut archive = tar::Archive::new(file);
    let mut entries = HashMap::new();
    let listed = archive.entries_with_seek().map_err(|e| lift(e, what))?;
    entry::each(what, listed, ENTRY_LIMIT, |entry, data| {
        let Ok(name) = String::from_utf8(entry.path) else { return Ok(()) };
        let name = name.strip_prefix("./").map(str::to_string).unwrap_or(name);
        let text = |link: Vec<u8>| String::from_utf8_lossy(&link).into_owned();
        let place = match entry.kind {
            Kind::File(size) => Place::At((data.raw_file_position(), size)),
            Kind::Symlink(to) => Place::Link(beside(&name, &text(to))),
            Kind::Hardlink(to) => Place::Link(text(to)),
            _ => return Ok(()),
        };
        entries.insert(name, place);
        Ok(())
    })?;
    Ok(entries)
}

/// The name that a symlink at `name` means. It is only looked up among the archive's own names.
fn beside(name: &str, link: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "" | "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn sniff(file: &File) -> Compression {
    sniff_at(file, 0)
}

fn sniff_at(file: &File, at: u64) -> Compression {
    let mut magic = [0; 4];
    match file.read_exact_at(&mut magic, at) {
        Ok(()) if magic[..2] == [0x1f, 0x8b] => Compression::Gzip,
        Ok(()) if magic == [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Reads one entry, by position: many at a time from one file.
struct SectionReader {
    archive: Arc<Archive>,
    at: u64,
    left: u64,
}

impl Read for SectionReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.archive.file.read_at(&mut into[..most], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
