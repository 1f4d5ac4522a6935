//! What a tree takes on disk.

use std::{collections::HashSet, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use crate::{Error, Result, error::At};

/// Directories deeper than this are refused: a descriptor is held for each level.
pub(crate) const DEEPEST: usize = 256;

/// Bytes that a tree takes: blocks of everything below, hard links once, no other filesystem, no symlink followed even
/// when one is swapped in. Absent is 0. What is removed meanwhile is left out.
///
/// # Errors
/// [`Error::TooDeep`]: someone hides from being measured; treat it as over any limit.
pub fn usage(path: &Path) -> Result<u64> {
    let root = match open(CWD, path) {
        Ok(root) => root,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(0),
        Err(e) => return Err(e).at("open", path),
    };
    let stat = rustix::fs::fstat(&root).at("stat", path)?;
    let mut walk = Walk { device: stat.st_dev, links: HashSet::new(), bytes: stat.st_blocks as u64 * 512 };
    match walk.below(root, 1) {
        Ok(()) => Ok(walk.bytes),
        Err(Errno::NAMETOOLONG) => Err(Error::TooDeep(path.display().to_string())),
        Err(e) => Err(e).at("measure", path),
    }
}

struct Walk {
    device: u64,
    links: HashSet<u64>,
    bytes: u64,
}

impl Walk {
    fn below(&mut self, dir: OwnedFd, depth: usize) -> std::result::Result<(), Errno> {
        if depth > DEEPEST {
            return Err(Errno::NAMETOOLONG);
        }
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if stat.st_dev != self.device || (stat.st_nlink > 1 && !self.first(&stat)) {
                continue;
            }
            self.bytes += stat.st_blocks as u64 * 512;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                && let Ok(sub) = open(&dir, name)
            {
                self.below(sub, depth + 1)?;
            }
        }
        Ok(())
    }

    fn first(&mut self, stat: &rustix::fs::Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == FileType::Directory || self.links.insert(stat.st_ino)
    }
}

fn open(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn counts_once_and_stays_inside() {
        let tmp = tempfile::tempdir().unwrap();
        let base = usage(tmp.path()).unwrap();
        fs::write(tmp.path().join("a"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(tmp.path().join("a"), tmp.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/usr", tmp.path().join("usr")).unwrap();
        let used = usage(tmp.path()).unwrap() - base;
        assert!((1 << 20..(1 << 20) + 65536).contains(&used), "{used}");
        assert_eq!(usage(&tmp.path().join("none")).unwrap(), 0);
    }

    #[test]
    fn hiding_in_the_deep_is_noticed() {
        let tmp = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", DEEPEST + 1).collect();
        fs::create_dir_all(tmp.path().join(deep)).unwrap();
        assert!(matches!(usage(tmp.path()), Err(Error::TooDeep(_))));
    }
}
