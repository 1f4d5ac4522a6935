//! Unpacks tar entries into a directory, in overlayfs' own form, and into nothing but that directory.
//!
//! Each layer is unpacked by itself, into an empty directory, so no other layer's symlinks are ever in its way. Within it
//! every directory is opened by `openat2` beneath the root and through no symlink (CVE-2014-9356, CVE-2018-15664,
//! CVE-2019-14271, CVE-2021-30465), and the last component is made, never opened for writing as it is.

use crate::{
    entry::{Attributes, Entry, Kind},
    error::{Error, Result},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{
        AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags, chownat, fchmod, fchown,
        fsetxattr, fstatvfs, futimens, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, utimensat,
    },
    io::Errno,
    process::{Gid, Uid},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, CString},
    io::Read,
    path::Path,
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// The most components a name may have.
const DEPTH: usize = 256;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an unpacked layer is, beside its files.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Unpacked {
    /// Bytes on disk, about.
    pub size: u64,
    /// Directories that only names below them tell of: their attributes are those of a layer below.
    pub implied: Vec<String>,
    /// Mode, owner and group of the root, if the layer sets them.
    pub root: Option<(u32, u32, u32)>,
}

/// Unpacks the entries of one layer.
pub struct Unpacker<'a> {
    what: &'a str,
    root: OwnedFd,
    /// The directory last worked in: tars come sorted by directory.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Set last, for what is made in them changes their times, and a setgid bit would be inherited.
    directories: BTreeMap<Vec<u8>, Attributes>,
    implied: BTreeSet<Vec<u8>>,
    unpacked: Unpacked,
    buffer: Vec<u8>,
}

/// Why an entry was not unpacked.
enum Fault {
    Refused(&'static str),
    Kernel(&'static str, Errno),
    Data(std::io::Error),
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Self {
        Fault::Refused(reason)
    }
}

fn at(act: &'static str) -> impl FnOnce(Errno) -> Fault {
    move |e| Fault::Kernel(act, e)
}

type Step<T = ()> = std::result::Result<T, Fault>;

impl<'a> Unpacker<'a> {
    /// Into `root`, an empty directory. `what` names the layer in errors.
    pub fn new(what: &'a str, root: &Path) -> Result<Self> {
        let opened = walk::open(root).map_err(|e| Error::io(root.display().to_string(), e))?;
        Ok(Self {
            what,
            root: opened,
            parent: None,
            directories: BTreeMap::new(),
            implied: BTreeSet::new(),
            unpacked: Unpacked::default(),
            buffer: vec![0; 256 << 10],
        })
    }

    /// Unpacks one entry.
    pub fn apply(&mut self, entry: Entry, data: &mut dyn Read) -> Result<()> {
        self.place(&entry, data).map_err(|fault| self.error(&entry.path, fault))
    }

    /// Sets the attributes of directories; to be called after the last entry.
    pub fn finish(mut self) -> Result<Unpacked> {
        for (path, attributes) in std::mem::take(&mut self.directories).into_iter().rev() {
            let set = || -> Step {
                let dir = openat2(&self.root, &path, DIRECTORY, Mode::empty(), BENEATH).map_err(at("open"))?;
                set(&dir, &attributes)
            };
            set().map_err(|fault| self.error(&path, fault))?;
        }
        let text =
            |path: Vec<u8>| String::from_utf8(path).map_err(|e| self.error(e.as_bytes(), "name is not UTF-8".into()));
        let implied = self.implied.iter().cloned().map(text).collect::<Result<_>>()?;
        self.unpacked.implied = implied;
        Ok(self.unpacked)
    }

    fn error(&self, path: &[u8], fault: Fault) -> Error {
        match fault {
            Fault::Refused(reason) => Error::archive(self.what, path, reason),
            Fault::Data(e) => crate::layer::lift(e, self.what),
            // These are the archive's doing; all else is the disk's.
            Fault::Kernel(
                act,
                e @ (Errno::LOOP
                | Errno::NOTDIR
                | Errno::XDEV
                | Errno::NAMETOOLONG
                | Errno::NOENT
                | Errno::EXIST
                | Errno::ISDIR
                | Errno::INVAL
                | Errno::MLINK),
            ) => Error::archive(self.what, path, format!("{act}: {e}")),
            Fault::Kernel(act, e) => Error::io(format!("{}: {act}", self.what), e),
        }
    }

    fn place(&mut self, entry: &Entry, data: &mut dyn Read) -> Step {
        let path = clean(&entry.path)?;
        let Some((parent, name)) = split(&path) else {
            if entry.kind != Kind::Directory {
                return Err("replaces the root".into());
            }
            let Attributes { mode, uid, gid, .. } = entry.attributes;
            self.unpacked.root = Some((mode, uid, gid));
            return Ok(());
        };
        if name.starts_with(WHITEOUT) {
            return self.whiteout(parent, name);
        }
        // Seen by nobody: the runtime puts its own /dev over it. Elsewhere a device is a door.
        if entry.kind == Kind::Device {
            return if path.starts_with(b"dev/") { Ok(()) } else { Err("is a device".into()) };
        }
        let name = &CString::new(name).map_err(|_| "name holds NUL")?;
        self.enter(parent)?;
        match &entry.kind {
            Kind::File(size) => self.file(name, *size, &entry.attributes, data),
            Kind::Directory => {
                let dir = self.directory(name)?;
                xattrs(&dir, &entry.attributes)?;
                self.implied.remove(&path);
                self.directories.insert(path, entry.attributes.clone());
                Ok(())
            }
            Kind::Symlink(to) => {
                self.made(name, |dir| symlinkat(to.as_slice(), dir, name)).map_err(at("make the symlink"))?;
                self.dress(name, &entry.attributes)
            }
            Kind::Hardlink(to) => self.hardlink(to, name),
            Kind::Fifo => {
                self.made(name, |dir| {
                    mknodat(dir, name, FileType::Fifo, Mode::from_raw_mode(entry.attributes.mode), 0)
                })
                .map_err(at("make the pipe"))?;
                self.dress(name, &entry.attributes)?;
                // The name was made by us just now, in a directory that only we write to.
                let mode = Mode::from_raw_mode(entry.attributes.mode);
                rustix::fs::chmodat(self.dir(), name, mode, AtFlags::empty()).map_err(at("set the mode"))
            }
            Kind::Device => Ok(()),
        }
    }

    fn dir(&self) -> &OwnedFd {
        self.parent.as_ref().map_or(&self.root, |(_, fd)| fd)
    }

    /// Makes `parent` the directory we work in, and all above it that is missing.
    fn enter(&mut self, parent: &[u8]) -> Step {
        if parent.is_empty() {
            self.parent = None;
            return Ok(());
        }
        if self.parent.as_ref().is_some_and(|(path, _)| path == parent) {
            return Ok(());
        }
        let opened = match openat2(&self.root, parent, DIRECTORY, Mode::empty(), BENEATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.imply(parent)?,
            Err(Errno::LOOP) => return Err("leads through a symlink".into()),
            opened => opened.map_err(at("open its directory"))?,
        };
        self.parent = Some((parent.to_vec(), opened));
        Ok(())
    }

    /// Makes directories that no entry told of.
    fn imply(&mut self, path: &[u8]) -> Step<OwnedFd> {
        self.parent = None;
        let mut done = 0;
        for name in path.split(|b| *b == b'/') {
            let name_c = CString::new(name).map_err(|_| "name holds NUL")?;
            let next = match openat(self.dir(), &name_c, DIRECTORY, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => {
                    self.implied.insert(path[..done + name.len()].to_vec());
                    self.directory(&name_c)?
                }
                Err(Errno::NOTDIR | Errno::LOOP) => match self.stat(&name_c) {
                    Some(stat) if is_whiteout(&stat) => {
                        self.implied.insert(path[..done + name.len()].to_vec());
                        self.directory(&name_c)?
                    }
                    Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                        return Err("leads through a symlink".into());
                    }
                    _ => return Err("leads through what is not a directory".into()),
                },
                Err(e) => return Err(Fault::Kernel("open its directory", e)),
            };
            done += name.len();
            self.parent = Some((path[..done].to_vec(), next));
            done += 1;
        }
        self.parent.take().map(|(_, dir)| dir).ok_or_else(|| "has no directory".into())
    }

    fn stat(&self, name: &CStr) -> Option<Stat> {
        statat(self.dir(), name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// Makes something new at `name`, in place of what an earlier entry put there.
    fn made<T>(&mut self, name: &CStr, make: impl Fn(&OwnedFd) -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        self.unpacked.size += 256;
        match make(self.dir()) {
            Err(Errno::EXIST) => {
                walk::remove(self.dir(), name)?;
                self.forget(name);
                make(self.dir())
            }
            done => done,
        }
    }

    /// Forgets the directories at and below `name`, which was removed.
    fn forget(&mut self, name: &CStr) {
        let mut gone = self.parent.as_ref().map(|(path, _)| [path, &b"/"[..]].concat()).unwrap_or_default();
        gone.extend_from_slice(name.to_bytes());
        let below = |path: &Vec<u8>| *path == gone || path.strip_prefix(&gone[..]).is_some_and(|r| r.starts_with(b"/"));
        self.directories.retain(|path, _| !below(path));
        self.implied.retain(|path| !below(path));
    }

    /// Makes a directory, or takes the one that is there. In place of a whiteout it hides what is below (opaque).
    fn directory(&mut self, name: &CStr) -> Step<OwnedFd> {
        let before = match mkdirat(self.dir(), name, Mode::RWXU) {
            Err(Errno::EXIST) => self.stat(name),
            made => {
                made.map_err(at("make the directory"))?;
                self.unpacked.size += 4096;
                None
            }
        };
        if before.as_ref().is_some_and(|s| !walk::is_dir(s.st_mode)) {
            self.made(name, |dir| mkdirat(dir, name, Mode::RWXU)).map_err(at("make the directory"))?;
        }
        let dir = openat(self.dir(), name, DIRECTORY, Mode::empty()).map_err(at("open the directory"))?;
        match before {
            Some(stat) if is_whiteout(&stat) => opaque(&dir)?,
            // An implied one becomes what 0755 promises; `finish` sets those that have an entry.
            None => fchmod(&dir, Mode::from_raw_mode(0o755)).map_err(at("set the mode"))?,
            _ => {}
        }
        Ok(dir)
    }

    fn file(&mut self, name: &CStr, size: u64, attributes: &Attributes, data: &mut dyn Read) -> Step {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            self.made(name, |dir| openat(dir, name, flags, Mode::RUSR | Mode::WUSR)).map_err(at("make the file"))?;
        let mut left = size;
        while left > 0 {
            let most = left.min(self.buffer.len() as u64) as usize;
            let got = data.read(&mut self.buffer[..most]).map_err(Fault::Data)?;
            if got == 0 {
                return Err("ends before its size".into());
            }
            has_room(&file, got)?;
            let mut chunk = &self.buffer[..got];
            while !chunk.is_empty() {
                let written = rustix::io::write(&file, chunk).map_err(at("write"))?;
                chunk = &chunk[written..];
            }
            left -= got as u64;
        }
        self.unpacked.size += size.next_multiple_of(4096);
        set(&file, attributes)?;
        xattrs(&file, attributes)
    }

    /// Links to a regular file of this layer only: a link to a symlink would let a later entry act on what it points to.
    fn hardlink(&mut self, to: &[u8], name: &CStr) -> Step {
        let target = clean(to)?;
        let (parent, target_name) = split(&target).ok_or("links to the root")?;
        let opened;
        let dir = if parent.is_empty() {
            &self.root
        } else {
            opened =
                openat2(&self.root, parent, DIRECTORY, Mode::empty(), BENEATH).map_err(at("open the link's target"))?;
            &opened
        };
        let target_name = &CString::new(target_name).map_err(|_| "name holds NUL")?;
        let stat = statat(dir, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(at("find the link's target"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err("links to what is not a regular file".into());
        }
        let here = self.dir();
        match linkat(dir, target_name, here, name, AtFlags::empty()) {
            Err(Errno::EXIST) => {}
            done => return done.map_err(at("make the link")),
        }
        // To itself, or to the other name of the same file.
        if self.stat(name).is_some_and(|s| (s.st_dev, s.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        walk::remove(here, name).map_err(at("replace"))?;
        let linked = linkat(dir, target_name, here, name, AtFlags::empty()).map_err(at("make the link"));
        self.forget(name);
        linked
    }

    /// `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all of its directory. What this layer itself has there stays,
    /// whichever came first (image-spec, "Whiteouts").
    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Step {
        if name == OPAQUE {
            if parent.is_empty() {
                return Err("hides the root".into());
            }
            self.enter(parent)?;
            return opaque(self.dir());
        }
        let hidden = &name[WHITEOUT.len()..];
        if hidden.starts_with(WHITEOUT) {
            return Ok(()); // aufs' own books
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err("hides its own or another directory".into());
        }
        let hidden = &CString::new(hidden).map_err(|_| "name holds NUL")?;
        self.enter(parent)?;
        match mknodat(self.dir(), hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => match openat(self.dir(), hidden, DIRECTORY, Mode::empty()) {
                Ok(dir) => opaque(&dir),
                Err(_) => Ok(()),
            },
            done => done.map_err(at("make the whiteout")),
        }
    }

    /// Owner and time of what cannot be opened.
    fn dress(&self, name: &CStr, attributes: &Attributes) -> Step {
        let (uid, gid) = owner(attributes);
        chownat(self.dir(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(at("set the owner"))?;
        utimensat(self.dir(), name, &times(attributes), AtFlags::SYMLINK_NOFOLLOW).map_err(at("set the time"))
    }
}

/// What a filesystem keeps back for the system is not for images, even if we might take it.
fn has_room(file: &OwnedFd, bytes: usize) -> Step {
    let now = fstatvfs(file).map_err(at("measure"))?;
    let room = now.f_bavail.saturating_mul(now.f_frsize);
    if room < bytes as u64 { Err(Fault::Kernel("write", Errno::NOSPC)) } else { Ok(()) }
}

/// Owner, then mode (chown clears setuid), then time.
fn set(fd: &OwnedFd, attributes: &Attributes) -> Step {
    let (uid, gid) = owner(attributes);
    fchown(fd, uid, gid).map_err(at("set the owner"))?;
    fchmod(fd, Mode::from_raw_mode(attributes.mode)).map_err(at("set the mode"))?;
    futimens(fd, &times(attributes)).map_err(at("set the time"))
}

fn xattrs(fd: &OwnedFd, attributes: &Attributes) -> Step {
    for (name, value) in &attributes.xattrs {
        match fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
            // Not every filesystem has user attributes; capabilities must not be lost in silence.
            Err(Errno::OPNOTSUPP) if name.starts_with("user.") => {}
            done => done.map_err(at("set an attribute"))?,
        }
    }
    Ok(())
}

fn opaque(dir: impl AsFd) -> Step {
    fsetxattr(dir, c"trusted.overlay.opaque", b"y", XattrFlags::empty()).map_err(at("hide the directory below"))
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
}

fn times(attributes: &Attributes) -> Timestamps {
    let (tv_sec, nanos) = attributes.mtime;
    let time = Timespec { tv_sec, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// A name as components joined by `/`; empty for the root.
///
/// Absolute names and `..` are refused rather than bent into shape ("zip slip").
fn clean(raw: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    if raw.starts_with(b"/") {
        return Err("name is absolute");
    }
    if raw.len() > 4095 {
        return Err("name is too long");
    }
    let mut path = Vec::with_capacity(raw.len());
    let mut depth = 0;
    for part in raw.split(|b| *b == b'/').filter(|p| !matches!(*p, b"" | b".")) {
        depth += 1;
        match part {
            b".." => return Err("name leads outside"),
            _ if part.len() > 255 || depth > DEPTH => return Err("name is too long"),
            _ if !path.is_empty() => path.push(b'/'),
            _ => {}
        }
        path.extend_from_slice(part);
    }
    Ok(path)
}

/// Directory and last component; none for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => (!path.is_empty()).then_some((&path[..0], path)),
    }
}
