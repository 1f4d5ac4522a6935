//! subPath: a part of a volume, which the pod's own processes may be changing while it is resolved.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags},
};

use crate::{Error, Result, Volumes, component, error::At, relative, tree};

/// CVE-2017-1002101, CVE-2021-25741: a symlink planted in the volume, or swapped in between check and mount, led the
/// mount to the host. The kernel resolves each step inside the volume, and what is mounted is the open descriptor.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

impl Volumes {
    /// The part `sub` of the volume at `volume`, as a bind mount that belongs to the pod: what it shows is settled now,
    /// whatever becomes of the path. A missing directory is made when `make` is set. `slot` numbers the mounts of a
    /// container.
    pub fn sub_path(
        &self,
        pod: &str,
        container: &str,
        slot: usize,
        volume: &Path,
        sub: &str,
        make: bool,
    ) -> Result<PathBuf> {
        let parts = relative(sub)?;
        let root = rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty())
            .at("open", volume)?;
        let found = resolve(&root, &parts, make).map_err(|e| match e {
            Errno::NOENT => Error::NoSubPath(sub.into()),
            e => Error::Io {
                doing: "resolve subPath in",
                path: volume.join(sub).display().to_string(),
                source: e.into(),
            },
        })?;
        let dir = self.disk(pod)?.join("subpaths").join(component(container)?);
        tree::make_private(&dir)?;
        let target = dir.join(slot.to_string());
        crate::teardown::unmount(&target)?;
        tree::remove(&target)?;
        let stat = rustix::fs::fstat(&found).at("stat", &target)?;
        match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::Directory => tree::make(&target, 0o755)?,
            _ => drop(std::fs::File::create_new(&target).at("make", &target)?),
        }
        bind(found.as_fd(), &target)?;
        Ok(target)
    }
}

fn resolve(root: &OwnedFd, parts: &[&str], make: bool) -> std::result::Result<OwnedFd, Errno> {
    let path: PathBuf = if parts.is_empty() { ".".into() } else { parts.iter().collect() };
    let open = || rustix::fs::openat2(root, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE);
    match open() {
        Err(Errno::NOENT) if make => {
            for n in 1..=parts.len() {
                let parent: PathBuf = if n == 1 { ".".into() } else { parts[..n - 1].iter().collect() };
                let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
                let parent = rustix::fs::openat2(root, &parent, flags, Mode::empty(), INSIDE)?;
                match rustix::fs::mkdirat(&parent, parts[n - 1], Mode::from_raw_mode(0o750)) {
                    Ok(()) => adopt_parent(&parent, parts[n - 1])?,
                    Err(Errno::EXIST) => {}
                    Err(e) => return Err(e),
                }
            }
            open()
        }
        other => other,
    }
}

/// A directory that was made takes its parent's mode and owner, as kubelet's do.
fn adopt_parent(parent: &OwnedFd, name: &str) -> std::result::Result<(), Errno> {
    let like = rustix::fs::fstat(parent)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(like.st_uid), rustix::fs::Gid::from_raw(like.st_gid));
    rustix::fs::fchown(&made, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(like.st_mode & 0o7777))
}

fn bind(from: std::os::fd::BorrowedFd<'_>, target: &Path) -> Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::from_bits_retain(AtFlags::EMPTY_PATH.bits());
    let tree = rustix::mount::open_tree(from, "", flags).at("open for a mount on", target)?;
    rustix::mount::move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at("mount on", target)?;
    rustix::mount::mount_change(target, rustix::mount::MountPropagationFlags::PRIVATE).at("make private", target)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, sync::atomic::AtomicBool, sync::atomic::Ordering::Relaxed};

    use super::*;
    use crate::Medium;

    struct Fixture {
        _tmp: tempfile::TempDir,
        outside: PathBuf,
        volume: PathBuf,
        v: Volumes,
    }

    fn fixture() -> Fixture {
        let tmp = tempfile::tempdir().unwrap();
        let outside = tmp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("host"), "secret of the host").unwrap();
        let v = Volumes::open(&tmp.path().join("state"), &tmp.path().join("run")).unwrap();
        let volume = v.empty_dir("u", "vol", Medium::Disk, None).unwrap();
        Fixture { outside, volume, v, _tmp: tmp }
    }

    #[test]
    fn shows_the_part_and_leaves_nothing() {
        let f = fixture();
        fs::create_dir_all(f.volume.join("a/b")).unwrap();
        fs::write(f.volume.join("a/b/x"), "x").unwrap();
        let part = f.v.sub_path("u", "c", 0, &f.volume, "a/b", false).unwrap();
        assert_eq!(fs::read_to_string(part.join("x")).unwrap(), "x");
        let file = f.v.sub_path("u", "c", 1, &f.volume, "a/b/x", false).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "x");
        let made = f.v.sub_path("u", "c", 2, &f.volume, "new/deep", true).unwrap();
        fs::write(made.join("y"), "y").unwrap();
        assert_eq!(fs::read_to_string(f.volume.join("new/deep/y")).unwrap(), "y");
        assert!(matches!(f.v.sub_path("u", "c", 3, &f.volume, "none", false), Err(Error::NoSubPath(_))));
        f.v.teardown("u").unwrap();
        f.v.close().unwrap();
    }

    #[test]
    fn symlinks_stay_inside() {
        let f = fixture();
        symlink(&f.outside, f.volume.join("abs")).unwrap();
        symlink("../../../../../../../..", f.volume.join("up")).unwrap();
        for link in ["abs", "abs/host", "up/etc"] {
            assert!(f.v.sub_path("u", "c", 0, &f.volume, link, false).is_err(), "{link} led out");
        }
        assert!(f.v.sub_path("u", "c", 0, &f.volume, "../other", true).is_err());
        let up = f.v.sub_path("u", "c", 0, &f.volume, "up", false).unwrap();
        assert!(up.join("abs").symlink_metadata().is_ok(), "'..' of the volume's root is the root");
        f.v.teardown("u").unwrap();
        f.v.close().unwrap();
    }

    /// CVE-2021-25741: the directory becomes a symlink between the check and the mount.
    #[test]
    fn swapped_while_resolved() {
        let f = fixture();
        let (good, link, at) = (f.volume.join("good"), f.volume.join("link"), f.volume.join("part"));
        fs::create_dir(&good).unwrap();
        symlink(&f.outside, &link).unwrap();
        symlink("good", &at).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                let tmp = f.volume.join("tmp");
                while !stop.load(Relaxed) {
                    for to in [f.outside.as_path(), Path::new("good")] {
                        let _ = symlink(to, &tmp).and_then(|()| fs::rename(&tmp, &at));
                    }
                }
            });
            let leaked = (0..300).any(|_| {
                let part = f.v.sub_path("u", "c", 0, &f.volume, "part", false);
                part.is_ok_and(|part| part.join("host").exists())
            });
            stop.store(true, Relaxed);
            assert!(!leaked, "led out of the volume");
        });
        f.v.teardown("u").unwrap();
        f.v.close().unwrap();
    }
}
