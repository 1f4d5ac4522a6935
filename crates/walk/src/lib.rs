//! Walks of directory trees that someone hostile has made: of any depth, with two descriptors, never through a symlink.
//!
//! `std::fs::remove_dir_all` recurses with a descriptor a level; a container can nest deeper than our stack or rlimit.

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, Stat, fstat, openat, statat, unlinkat},
    io::{Errno, Result},
};
use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    path::Path,
    time::Instant,
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of disk, hard links counted once.
    pub bytes: u64,
    /// Files, directories and everything else.
    pub inodes: u64,
}

impl Usage {
    /// More than any limit.
    pub const ENDLESS: Self = Self { bytes: u64::MAX, inodes: u64::MAX };
}

/// Walks that begin anew because a directory was moved under their feet.
const TRIES: u32 = 8;

/// Opens a directory, not following a symlink.
pub fn open(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, DIRECTORY, Mode::empty())
}

/// Whether a mode is a directory's.
pub fn is_dir(mode: RawMode) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}

/// What is below a directory, itself not counted: absent is nothing, and what is counted until then is the least that
/// it is. A tree that changes meanwhile is counted roughly; one that does not hold still, time after time, hides from
/// being measured and is [`Usage::ENDLESS`].
pub fn usage(path: &Path, until: Instant) -> Result<Usage> {
    for _ in 0..TRIES {
        let root = match open(path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Usage::default()),
            root => root?,
        };
        match below(root, until) {
            Err(Errno::AGAIN) => {}
            counted => return counted,
        }
    }
    Ok(Usage::ENDLESS)
}

fn below(root: OwnedFd, until: Instant) -> Result<Usage> {
    let (mut usage, mut linked) = (Usage::default(), HashSet::new());
    let walked = walk(
        root,
        |_, _, stat| {
            if Instant::now() > until {
                return Err(Errno::TIMEDOUT);
            }
            if is_dir(stat.st_mode) || stat.st_nlink < 2 || linked.insert(stat.st_ino) {
                usage.inodes += 1;
                usage.bytes += 512 * stat.st_blocks as u64;
            }
            Ok(())
        },
        |_, _| Ok(()),
    );
    match walked {
        Err(Errno::TIMEDOUT) | Ok(()) => Ok(usage),
        Err(e) => Err(e),
    }
}

/// Removes `name` in `dir`, whatever it is. Absent is done.
pub fn remove(dir: impl AsFd, name: &CStr) -> Result<()> {
    let dir = dir.as_fd();
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        done => return done,
    }
    let unlink = |dir: BorrowedFd<'_>, name: &CStr, stat: &Stat| {
        if is_dir(stat.st_mode) { Ok(()) } else { unlinkat(dir, name, AtFlags::empty()) }
    };
    walk(openat(dir, name, DIRECTORY, Mode::empty())?, unlink, |dir, name| unlinkat(dir, name, AtFlags::REMOVEDIR))?;
    unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Removes a path, whatever it is. Absent is done.
pub fn remove_path(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    let name = CString::new(name.as_encoded_bytes()).map_err(|_| Errno::INVAL)?;
    match openat(CWD, parent, DIRECTORY, Mode::empty()) {
        Ok(parent) => remove(parent, &name),
        Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Calls `visit` for each entry as it is found and `leave` for each directory when all below it is done.
fn walk(
    root: OwnedFd,
    mut visit: impl FnMut(BorrowedFd<'_>, &CStr, &Stat) -> Result<()>,
    mut leave: impl FnMut(BorrowedFd<'_>, &CStr) -> Result<()>,
) -> Result<()> {
    struct Level {
        name: CString,
        id: (u64, u64),
        todo: Vec<CString>,
    }
    let mut enter = |dir: &OwnedFd, name: CString| -> Result<Level> {
        let stat = fstat(dir)?;
        let mut todo = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            visit(dir.as_fd(), name, &stat)?;
            if is_dir(stat.st_mode) {
                todo.push(name.to_owned());
            }
        }
        Ok(Level { name, id: (stat.st_dev, stat.st_ino), todo })
    };
    let mut here = root;
    let mut levels = vec![enter(&here, CString::default())?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.todo.pop() {
            match openat(&here, &name, DIRECTORY, Mode::empty()) {
                Ok(dir) => {
                    levels.push(enter(&dir, name)?);
                    here = dir;
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(e),
            }
            continue;
        }
        let done = levels.pop();
        if let (Some(done), Some(above)) = (done, levels.last()) {
            let up = openat(&here, c"..", DIRECTORY, Mode::empty())?;
            let stat = fstat(&up)?;
            // Someone moved the directory; going on would walk the host.
            if above.id != (stat.st_dev, stat.st_ino) {
                return Err(Errno::AGAIN);
            }
            leave(up.as_fd(), &done.name)?;
            here = up;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn deeper_than_descriptors_and_path_max() {
        // ext4 takes milliseconds to remove a directory.
        let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
        let top = tmp.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut here = open(&top).unwrap();
        for _ in 0..20_000 {
            mkdirat(&here, c"d", Mode::RWXU).unwrap();
            here = openat(&here, c"d", DIRECTORY, Mode::empty()).unwrap();
        }
        // Whoever is in there keeps all of it in the dentry cache, and each rmdir walks that.
        drop(here);
        let counted = usage(&top, soon()).unwrap().inodes;
        assert_eq!(counted, 20_000);
        let late = usage(&top, Instant::now()).unwrap();
        assert!(late.inodes < 20_000, "what is counted by then: {late:?}");
        remove_path(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn links_count_once_and_symlinks_are_not_followed() {
        let tmp = tempfile::tempdir().unwrap();
        let (top, outside) = (tmp.path().join("top"), tmp.path().join("outside"));
        std::fs::create_dir_all(top.join("d")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        std::fs::write(top.join("a"), vec![1; 8192]).unwrap();
        std::fs::hard_link(top.join("a"), top.join("d/b")).unwrap();
        std::os::unix::fs::symlink(&outside, top.join("out")).unwrap();
        assert_eq!(usage(&top, soon()).unwrap().inodes, 3, "d, a (also b), out");
        remove_path(&top).unwrap();
        assert!(outside.join("kept").exists() && !top.exists());
    }
}
