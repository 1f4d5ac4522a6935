//! What is on disk, and how it comes there: staged, synced, renamed. Several processes may share it.
//!
//! ```text
//! version                      the format; another is refused
//! lock                         held shared by whoever adds, exclusively by whoever collects
//! blobs/sha256/HEX             manifests and configurations; layers are not kept compressed
//! layers/sha256/HEX/fs         a layer unpacked by itself, HEX its DiffID; layer.json beside it
//! l/HEX6                       a short link to each fs, for overlay's options are one page
//! images/HEX.json              an image, HEX the digest of its configuration
//! names/HEX                    where a name leads; HEX is the name's own digest
//! snapshots/ID/{fs,work}       a container's writable layer; snapshot.json beside it
//! staging/BOOT.PID.N           one process' unfinished work, locked while it lives; done/HEX are layers not yet synced
//! ```
//!
//! Guarantees: what is not in `staging` is whole and was synced before it got its name, except snapshots, which do not
//! outlive a boot. After `kill -9` finished layers in a dead process' `done` are used by the next one, for the page cache
//! has them; after a reboot they are dropped.

use crate::{
    digest::Digest,
    error::{Error, Result},
    layer::{self, Expected, Limits},
    registry::verify,
    unpack::Unpacked,
};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, syncfs};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File},
    io::{self, BufRead, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

const FORMAT: &str = "1\n";

/// The content store.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// This process' part of `staging`, locked as long as it lives.
    staging: PathBuf,
    _alive: rustix::fd::OwnedFd,
    serial: AtomicU64,
    /// One commit at a time: it moves layers that another may be looking at.
    pub(crate) committing: Mutex<()>,
}

/// Holding it, nothing is collected.
#[derive(Debug)]
pub struct Shared(#[allow(dead_code)] File);

/// Holding it, nothing is added.
#[derive(Debug)]
pub struct Exclusive(#[allow(dead_code)] File);

/// A layer as kept beside its files.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct Record {
    /// The layer.
    #[serde(flatten)]
    pub unpacked: Unpacked,
}

impl Store {
    /// Opens the store at `root`, or makes one, and clears away what the dead have left in `staging`.
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|e| Error::io(root.display().to_string(), e))?;
        // 0700: layers hold setuid files that users of the host must not run (CVE-2021-41103).
        for dir in ["blobs/sha256", "layers/sha256", "l", "images", "names", "snapshots", "staging"] {
            let dir = root.join(dir);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| at(&dir, e))?;
        }
        fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(|e| at(&root, e))?;

        // Two that open at once would take each other's staging for the dead's.
        let opening = lock_file(&root.join("staging/lock"))?;
        flock(&opening, FlockOperation::LockExclusive).map_err(|e| at(&root, e))?;
        let version = root.join("version");
        match fs::read_to_string(&version) {
            Ok(found) if found == FORMAT => {}
            Ok(found) => return Err(Error::Unsupported { what: format!("{} of format {found:?}", root.display()) }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::write(&version, FORMAT).map_err(|e| at(&version, e))?
            }
            Err(e) => return Err(at(&version, e)),
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim();
        let mut n = 0;
        let staging = loop {
            let staging = root.join(format!("staging/{boot}.{}.{n}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&staging) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => n += 1,
                made => break made.map(|()| staging.clone()).map_err(|e| at(&staging, e))?,
            }
        };
        fs::create_dir(staging.join("done")).map_err(|e| at(&staging, e))?;
        let alive = walk::open(&staging).map_err(|e| at(&staging, e))?;
        flock(&alive, FlockOperation::LockExclusive).map_err(|e| at(&staging, e))?;
        let store = Self { root, staging, _alive: alive, serial: AtomicU64::new(0), committing: Mutex::new(()) };
        store.inherit(boot)?;
        Ok(store)
    }

    /// Takes over finished layers of dead processes of this boot; removes the rest of what they left.
    fn inherit(&self, boot: &str) -> Result<()> {
        for (name, dead) in entries(&self.root.join("staging"))? {
            if name == "lock" || dead == self.staging {
                continue;
            }
            if let Ok(dir) = walk::open(&dead) {
                if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
                    continue;
                }
                if name.split('.').next() == Some(boot) {
                    for (layer, path) in entries(&dead.join("done")).unwrap_or_default() {
                        // Already here means another dead one had it too.
                        let _ = fs::rename(path, self.staging.join("done").join(layer));
                    }
                }
            }
            walk::remove_path(&dead).map_err(|e| at(&dead, e))?;
        }
        Ok(())
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the store.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// A path in staging that nobody uses.
    pub fn stage(&self) -> PathBuf {
        self.staging.join(self.serial.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Keeps collection out. Blocks while one is running.
    pub fn share(&self) -> Result<Shared> {
        let file = lock_file(&self.path("lock"))?;
        flock(&file, FlockOperation::LockShared).map_err(|e| at(&self.root, e))?;
        Ok(Shared(file))
    }

    /// Keeps everyone else out; none when someone is at work.
    pub fn try_exclude(&self) -> Result<Option<Exclusive>> {
        let file = lock_file(&self.path("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            locked => locked.map(|()| Some(Exclusive(file))).map_err(|e| at(&self.root, e)),
        }
    }

    /// Moves finished layers that no pull came to use into `trash`. The caller excludes everyone else.
    pub fn drop_done(&self, trash: &Path) -> Result<()> {
        for (hex, path) in entries(&self.staging.join("done"))? {
            fs::rename(&path, trash.join(format!("done-{hex}"))).map_err(|e| at(&path, e))?;
        }
        Ok(())
    }

    /// Makes everything written so far durable.
    pub fn sync(&self) -> Result<()> {
        let dir = walk::open(&self.root).map_err(|e| at(&self.root, e))?;
        syncfs(dir).map_err(|e| at(&self.root, e))
    }

    // Blobs

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path("blobs/sha256").join(digest.hex())
    }

    /// Keeps a small blob; durable after the next [`Store::sync`].
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.blob(&digest);
        if !path.exists() {
            self.write(&path, bytes, false)?;
        }
        Ok(digest)
    }

    /// A blob, verified again: disks err.
    pub fn get_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = read(&self.blob(digest))? else { return Ok(None) };
        verify("blob of the content store", &bytes, digest)?;
        Ok(Some(bytes))
    }

    // Small records

    /// Writes a file whole or not at all, durably if `sync`.
    pub fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> Result<()> {
        let stage = self.stage();
        let write = || -> io::Result<()> {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&stage)?;
            file.write_all(bytes)?;
            if sync {
                file.sync_all()?;
            }
            fs::rename(&stage, path)
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&stage);
            at(path, e)
        })
    }

    /// Writes a record as JSON.
    pub fn put<T: Serialize>(&self, path: &Path, record: &T, sync: bool) -> Result<()> {
        let bytes = serde_json::to_vec(record).map_err(|e| at(path, e))?;
        self.write(path, &bytes, sync)
    }

    /// A record; none where it is absent or, being no record, worth nothing.
    pub fn get<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        Ok(read(path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    // Layers

    fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.path("layers/sha256").join(diff_id.hex())
    }

    fn done(&self, diff_id: &Digest) -> PathBuf {
        self.staging.join("done").join(diff_id.hex())
    }

    /// A layer that is here, committed or not.
    pub fn find_layer(&self, diff_id: &Digest) -> Result<Option<(PathBuf, Record)>> {
        // Looked for twice in its place: it may have been committed in between.
        for dir in [self.layer(diff_id), self.done(diff_id), self.layer(diff_id)] {
            if let Some(record) = self.get(&dir.join("layer.json"))? {
                return Ok(Some((dir.join("fs"), record)));
            }
        }
        Ok(None)
    }

    /// Unpacks a layer and keeps it, verified but not yet synced. On error nothing is left of it.
    pub fn add_layer(&self, source: impl BufRead, expected: &Expected, limits: &Limits) -> Result<()> {
        let stage = self.stage();
        let unpacked = fs::create_dir(&stage)
            .and_then(|()| fs::create_dir(stage.join("fs")))
            .map_err(|e| at(&stage, e))
            .and_then(|()| layer::unpack(source, expected, limits, &stage.join("fs")))
            .and_then(|unpacked| {
                let root = unpacked.root.map_or(0o755, |(mode, ..)| mode);
                fs::set_permissions(stage.join("fs"), std::os::unix::fs::PermissionsExt::from_mode(root))
                    .map_err(|e| at(&stage, e))?;
                self.put(&stage.join("layer.json"), &Record { unpacked }, false)?;
                fs::rename(&stage, self.done(&expected.diff_id)).or_else(present).map_err(|e| at(&stage, e))
            });
        unpacked.map_err(|e| {
            let _ = walk::remove_path(&stage);
            match e {
                Error::DiskFull { .. } => Error::DiskFull { path: self.root.clone() },
                e => e,
            }
        })
    }

    /// Gives finished layers their place; call after [`Store::sync`].
    pub fn commit_layers<'a>(&self, diff_ids: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
        for diff_id in diff_ids {
            let (done, place) = (self.done(diff_id), self.layer(diff_id));
            // Absent: another pull of ours was first. Present: another process was.
            fs::rename(&done, &place).or_else(present).map_err(|e| at(&place, e))?;
        }
        Ok(())
    }

    /// The short path of a committed layer's files. Made again if it is missing.
    pub fn short(&self, diff_id: &Digest) -> Result<PathBuf> {
        let hex = diff_id.hex();
        let target = PathBuf::from(format!("../layers/sha256/{hex}/fs"));
        for length in 6..=hex.len() {
            let link = self.path("l").join(&hex[..length]);
            match fs::read_link(&link) {
                Ok(found) if found == target => return Ok(link),
                Ok(_) => {} // another layer of the same beginning
                Err(_) => match symlink(&target, &link) {
                    Ok(()) => return Ok(link),
                    Err(e)
                        if e.kind() == io::ErrorKind::AlreadyExists
                            && fs::read_link(&link).ok().as_ref() == Some(&target) =>
                    {
                        return Ok(link);
                    }
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(at(&link, e)),
                },
            }
        }
        Ok(self.layer(diff_id).join("fs"))
    }
}

impl Drop for Store {
    /// Finished layers are left for the next process; the lock goes with the descriptor.
    fn drop(&mut self) {
        if entries(&self.staging.join("done")).is_ok_and(|d| d.is_empty()) {
            let _ = walk::remove_path(&self.staging);
        }
    }
}

/// Not there any more, or there already: someone else has done it.
fn present(e: io::Error) -> io::Result<()> {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => Ok(()),
        _ => Err(e),
    }
}

/// An error with its path; a full disk is told apart.
pub fn at(path: &Path, e: impl Into<io::Error>) -> Error {
    Error::io(path.display().to_string(), e)
}

/// Names and paths in a directory; what is not UTF-8 is not ours.
pub fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let listed: io::Result<Vec<_>> = fs::read_dir(dir).and_then(Iterator::collect);
    let listed = listed.map_err(|e| at(dir, e))?;
    Ok(listed.into_iter().filter_map(|e| Some((e.file_name().into_string().ok()?, e.path()))).collect())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        read => read.map(Some).map_err(|e| at(path, e)),
    }
}

fn lock_file(path: &Path) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    open(path, flags, Mode::RUSR | Mode::WUSR).map(File::from).map_err(|e| at(path, e))
}
