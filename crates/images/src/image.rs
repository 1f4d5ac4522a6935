//! Images as they are kept: a record each, a file for each name that leads to one.

use crate::{
    Image,
    content::{Store, at, entries},
    digest::Digest,
    error::{Error, Result},
    merged,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fs, io, path::PathBuf, time::SystemTime};

/// An image on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Digest of the configuration.
    pub id: Digest,
    /// `registry/repository@digest`, or empty.
    pub digest: String,
    /// Names that were given to it; those count whose file still says so.
    pub names: BTreeSet<String>,
    /// DiffIDs, bottom first.
    pub layers: Vec<Digest>,
    /// Blobs it needs.
    pub blobs: Vec<Digest>,
    /// Bytes on disk.
    pub size: u64,
    /// Directories a container's writable layer must have from the start, because layers above their entry only imply them;
    /// the root is "".
    pub directories: Vec<(String, u32, u32, u32)>,
}

/// An image about to be kept, its layers found or added.
#[derive(Debug)]
pub struct New {
    /// Its configuration.
    pub config: Vec<u8>,
    /// Manifests that lead to it.
    pub manifests: Vec<Vec<u8>>,
    /// `registry/repository@digest`, or empty.
    pub digest: String,
    /// Its names.
    pub names: Vec<String>,
    /// DiffIDs, bottom first.
    pub layers: Vec<Digest>,
}

impl Store {
    fn image(&self, id: &Digest) -> PathBuf {
        self.path("images").join(format!("{}.json", id.hex()))
    }

    fn name(&self, name: &str) -> PathBuf {
        self.path("names").join(Digest::of(name.as_bytes()).hex())
    }

    /// Keeps an image: its layers, then its record, then its names. Durable on return. The caller holds the shared lock.
    pub fn commit(&self, new: New) -> Result<Image> {
        let _one = self.committing.lock().unwrap_or_else(|e| e.into_inner());
        let id = Digest::of(&new.config);
        if let Some(kept) = self.kept(&id, &new)? {
            return Ok(kept);
        }
        let mut layers = Vec::new();
        for diff_id in new.layers.iter().rev() {
            let found = self.find_layer(diff_id)?;
            layers.push(
                found.ok_or_else(|| at(&self.path("layers"), io::Error::other(format!("layer {diff_id} vanished"))))?,
            );
        }
        let paths: Vec<PathBuf> = layers.iter().map(|(path, _)| path.clone()).collect();
        merged::check_mount_points(&paths)?;
        let blobs =
            std::iter::once(&new.config).chain(&new.manifests).map(|b| self.put_blob(b)).collect::<Result<Vec<_>>>()?;

        let root = layers.iter().find_map(|(_, r)| r.unpacked.root).unwrap_or((0o755, 0, 0));
        let mut directories = vec![(String::new(), root.0, root.1, root.2)];
        let telling: Vec<_> = layers.iter().map(|(path, r)| (path.clone(), &r.unpacked.implied[..])).collect();
        let implied: BTreeSet<&String> = layers.iter().flat_map(|(_, r)| &r.unpacked.implied).collect();
        for path in implied {
            if let Some((mode, uid, gid)) = merged::attributes(&telling, path)
                && (mode, uid, gid) != (0o755, 0, 0)
                && matches!(merged::find(&paths, path), Ok(merged::Found::Present(s)) if walk::is_dir(s.st_mode))
            {
                directories.push((path.clone(), mode, uid, gid));
            }
        }
        let size = layers.iter().map(|(_, r)| r.unpacked.size).sum();

        // Content first, then what points to it; the second sync is cheap.
        self.sync()?;
        self.commit_layers(&new.layers)?;
        let before = self.get::<Record>(&self.image(&id))?;
        let names = before.into_iter().flat_map(|r| r.names).chain(new.names.iter().cloned()).collect();
        let record = Record { id, digest: new.digest, names, layers: new.layers, blobs, size, directories };
        self.put(&self.image(&record.id), &record, true)?;
        for name in &new.names {
            self.write(&self.name(name), record.id.to_string().as_bytes(), true)?;
        }
        self.sync()?;
        self.read(record)?.ok_or_else(|| at(&self.path("images"), io::Error::other("image vanished")))
    }

    /// The image, if it is here already just as `new` would have it.
    fn kept(&self, id: &Digest, new: &New) -> Result<Option<Image>> {
        let Some(record) = self.get::<Record>(&self.image(id))? else { return Ok(None) };
        if record.digest != new.digest || record.layers != new.layers || !new.names.iter().all(|n| self.leads_to(n, id))
        {
            return Ok(None);
        }
        self.read(record)
    }

    fn leads_to(&self, name: &str, id: &Digest) -> bool {
        fs::read(self.name(name)).is_ok_and(|found| found == id.to_string().as_bytes())
    }

    /// The image of a record; none if something of it is missing, so that it is pulled again.
    fn read(&self, record: Record) -> Result<Option<Image>> {
        let Some(config) = self.get_blob(&record.id)? else { return Ok(None) };
        let Ok(config) = serde_json::from_slice(&config) else { return Ok(None) };
        let mut layers = Vec::new();
        for diff_id in record.layers.iter().rev() {
            let link = self.short(diff_id)?;
            if !link.exists() {
                return Ok(None);
            }
            layers.push(link);
        }
        let names = record.names.into_iter().filter(|n| self.leads_to(n, &record.id)).collect();
        Ok(Some(Image { id: record.id.to_string(), digest: record.digest, names, config, layers, size: record.size }))
    }

    /// The record of an image id.
    pub fn record(&self, id: &Digest) -> Result<Option<Record>> {
        self.get(&self.image(id))
    }

    /// The id a canonical name leads to.
    pub fn resolve(&self, name: &str) -> Result<Option<Digest>> {
        match fs::read_to_string(self.name(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            found => Ok(found.map_err(|e| at(&self.name(name), e))?.parse().ok()),
        }
    }

    /// The image of this id.
    pub fn find(&self, id: &Digest) -> Result<Option<Image>> {
        self.record(id)?.map_or(Ok(None), |record| self.read(record))
    }

    /// All records, with the time each was last used.
    pub fn records(&self) -> Result<Vec<(Record, SystemTime)>> {
        let mut records = Vec::new();
        for (_, path) in entries(&self.path("images"))? {
            if let Some(record) = self.get(&path)? {
                records
                    .push((record, fs::metadata(&path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH)));
            }
        }
        Ok(records)
    }

    /// All images that are whole.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for (record, _) in self.records()? {
            images.extend(self.read(record)?);
        }
        images.sort_by(|a, b| (&a.names, &a.id).cmp(&(&b.names, &b.id)));
        Ok(images)
    }

    /// Notes that an image is used, for the order of collection.
    pub fn touch(&self, id: &Digest) {
        if let Ok(file) = fs::File::open(self.image(id)) {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// Takes a name away, and the image with its last one. Its layers stay until they are collected.
    pub fn forget_name(&self, name: &str) -> Result<bool> {
        let Some(id) = self.resolve(name)? else { return Ok(false) };
        remove(self.name(name))?;
        if let Some(record) = self.record(&id)?
            && !record.names.iter().any(|n| self.leads_to(n, &id) && !is_shadow(n, name))
        {
            self.forget(&record)?;
        }
        Ok(true)
    }

    /// Takes an image away with all its names.
    pub fn forget(&self, record: &Record) -> Result<()> {
        remove(self.image(&record.id))?;
        for name in record.names.iter().filter(|n| self.leads_to(n, &record.id)) {
            remove(self.name(name))?;
        }
        Ok(())
    }
}

/// Whether `other` is only the digest by which the tag `name` was pulled: it goes with the last tag of its repository.
fn is_shadow(other: &str, name: &str) -> bool {
    let repository = |n: &str| n.parse::<crate::Reference>().map(|r| r.name()).ok();
    other.contains('@') && repository(other) == repository(name)
}

fn remove(path: PathBuf) -> Result<()> {
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(&path, e)),
        _ => Ok(()),
    }
}

/// An image id, or an error that says what was expected.
pub fn parse_id(id: &str) -> Result<Digest> {
    id.parse().map_err(|reason| Error::BadReference { given: crate::error::printable(id.as_bytes(), 100), reason })
}
