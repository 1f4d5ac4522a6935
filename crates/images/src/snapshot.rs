//! Writable layers of containers. They live as long as the boot: a container does not outlive it either.

use crate::{
    Snapshot,
    content::{Store, at, entries},
    digest::Digest,
    error::{Error, Result},
    image::Record,
};
use rustix::{
    fs::{Mode, chmodat, chownat},
    process::{Gid, Uid},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};
use walk::Usage;

/// What a snapshot stands on.
#[derive(Debug, Serialize, Deserialize)]
struct Base {
    image: Digest,
    /// DiffIDs, bottom first.
    layers: Vec<Digest>,
}

impl Store {
    fn snapshot_dir(&self, id: &str) -> Result<PathBuf> {
        let valid = (1..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && !id.starts_with('.');
        if !valid {
            let id = crate::error::printable(id.as_bytes(), 100);
            return Err(Error::Snapshot { id, reason: "the id must be 1 to 128 of [A-Za-z0-9_.-]" });
        }
        Ok(self.path("snapshots").join(id))
    }

    /// Makes the writable layer `id` over an image; one that is there already for the same image is taken as it is.
    pub fn prepare(&self, image: &Record, id: &str) -> Result<Snapshot> {
        let dir = self.snapshot_dir(id)?;
        let _shared = self.share()?;
        if let Some(base) = self.get::<Base>(&dir.join("snapshot.json"))? {
            if base.image != image.id {
                return Err(Error::Snapshot { id: id.into(), reason: "exists for another image" });
            }
            return self.snapshot_of(&dir, &base);
        }
        let stage = self.stage();
        let base = Base { image: image.id.clone(), layers: image.layers.clone() };
        let make = || -> Result<()> {
            for below in ["", "fs", "work"] {
                fs::create_dir(stage.join(below)).map_err(|e| at(&stage, e))?;
            }
            for (path, mode, uid, gid) in &image.directories {
                seed(&stage.join("fs"), path, *mode, *uid, *gid)?;
            }
            self.put(&stage.join("snapshot.json"), &base, false)?;
            match fs::rename(&stage, &dir) {
                Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
                moved => moved.map_err(|e| at(&dir, e)),
            }
        };
        let made = make();
        let _ = walk::remove_path(&stage);
        made?;
        self.touch(&image.id);
        self.snapshot_of(&dir, &base)
    }

    fn snapshot_of(&self, dir: &Path, base: &Base) -> Result<Snapshot> {
        let lower = base.layers.iter().rev().map(|l| self.short(l)).collect::<Result<_>>()?;
        Ok(Snapshot { lower, upper: dir.join("fs"), work: dir.join("work") })
    }

    /// The writable layer of this id.
    pub fn snapshot(&self, id: &str) -> Result<Option<Snapshot>> {
        let dir = self.snapshot_dir(id)?;
        let base = self.get::<Base>(&dir.join("snapshot.json"))?;
        base.map(|base| self.snapshot_of(&dir, &base)).transpose()
    }

    /// Ids of all writable layers.
    pub fn snapshots(&self) -> Result<Vec<String>> {
        Ok(entries(&self.path("snapshots"))?.into_iter().map(|(id, _)| id).collect())
    }

    /// Removes a writable layer. Absent is done.
    pub fn discard_snapshot(&self, id: &str) -> Result<()> {
        let (dir, stage) = (self.snapshot_dir(id)?, self.stage());
        match fs::rename(&dir, &stage) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => moved.map_err(|e| at(&dir, e)).and_then(|()| walk::remove_path(&stage).map_err(|e| at(&dir, e))),
        }
    }

    /// What a writable layer takes, as far as it is counted by `until`.
    pub fn usage(&self, id: &str, until: Instant) -> Result<Usage> {
        let upper = self.snapshot_dir(id)?.join("fs");
        walk::usage(&upper, until).map_err(|e| at(&upper, e))
    }

    /// DiffIDs of layers that snapshots stand on.
    pub fn layers_in_use(&self) -> Result<HashSet<Digest>> {
        let mut used = HashSet::new();
        for (_, dir) in entries(&self.path("snapshots"))? {
            if let Some(base) = self.get::<Base>(&dir.join("snapshot.json"))? {
                used.extend(base.layers);
            }
        }
        Ok(used)
    }
}

/// Gives the writable layer a directory whose attributes the topmost layer that has it does not know.
fn seed(upper: &Path, path: &str, mode: u32, uid: u32, gid: u32) -> Result<()> {
    let dir = upper.join(path);
    let failed = |e: io::Error| at(&dir, e);
    fs::create_dir_all(&dir).map_err(failed)?;
    let own = || {
        chownat(
            rustix::fs::CWD,
            &dir,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            rustix::fs::AtFlags::empty(),
        )?;
        chmodat(rustix::fs::CWD, &dir, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty())
    };
    own().map_err(|e| failed(e.into()))
}
