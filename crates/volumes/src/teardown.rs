//! The end of a pod's volumes.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::{io::Errno, mount::UnmountFlags};

use crate::{Error, Faults, Result, Volumes, component, error::At, tree};

impl Volumes {
    /// Unmounts and removes all of a pod's; absent is done. Goes on after a fault; nothing is removed below a mount
    /// that stays.
    pub fn teardown(&self, pod: &str) -> std::result::Result<(), Faults> {
        let mut faults = Faults::default();
        let pod = match component(pod) {
            Ok(pod) => pod,
            Err(e) => return Err(Faults(vec![e])),
        };
        for (root, mounts) in [(&self.pods, "subpaths"), (&self.memory, ""), (&self.secrets, "none")] {
            let dir = root.join(pod);
            let below = dir.join(mounts);
            let unmounted = if below.exists() { unmount_below(&below) } else { Ok(()) };
            let clear = unmounted.is_ok();
            faults.note(unmounted);
            if clear {
                faults.note(tree::remove(&dir));
            }
        }
        faults.into_result()
    }

    /// Tears down every pod but those that `live` names. It is asked after what is here was listed: what is made
    /// meanwhile is not touched.
    pub fn collect(&self, live: impl FnOnce() -> BTreeSet<String>) -> std::result::Result<(), Faults> {
        let mut faults = Faults::default();
        let here = self.pods()?;
        for pod in here.difference(&live()) {
            if let Err(Faults(more)) = self.teardown(pod) {
                faults.0.extend(more);
            }
        }
        faults.into_result()
    }

    /// The pods that have anything here.
    pub fn pods(&self) -> std::result::Result<BTreeSet<String>, Faults> {
        let mut pods = BTreeSet::new();
        for root in [&self.pods, &self.memory, &self.secrets] {
            let entries = fs::read_dir(root).at("list", root).map_err(|e| Faults(vec![e]))?;
            pods.extend(entries.flatten().filter_map(|e| e.file_name().into_string().ok()));
        }
        Ok(pods)
    }
}

/// Unmounts what is mounted on a path, however often; absent is done.
pub(crate) fn unmount(path: &Path) -> Result<()> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e).at("unmount", path),
        }
    }
}

/// Unmounts all at and below a directory, innermost first.
pub(crate) fn unmount_below(dir: &Path) -> Result<()> {
    for path in mounts_below(dir)?.iter().rev() {
        unmount(path)?;
    }
    match mounts_below(dir)?.first() {
        None => Ok(()),
        Some(left) => Err(Error::Mounted(left.display().to_string())),
    }
}

/// The mount points at and below a directory, outermost first.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read(table).at("read", table)?;
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.into());
    Ok(text.split(|b| *b == b'\n').filter_map(mount_point).filter(|p| p.starts_with(&dir)).collect())
}

/// The fifth field of a line of `/proc/PID/mountinfo`, unescaped (proc(5)).
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|b| *b == b' ').nth(4)?;
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&b, tail)) = rest.split_first() {
        let octal = (b == b'\\').then(|| tail.get(..3)).flatten().and_then(|d| {
            d.iter().try_fold(0u32, |n, c| (b'0'..=b'7').contains(c).then(|| n * 8 + u32::from(c - b'0')))
        });
        match octal.and_then(|n| u8::try_from(n).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
    Some(std::ffi::OsString::from_vec(out).into())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::fs::{Mode, OFlags, mkdirat, openat};

    use super::*;
    use crate::{File, Medium, Projection};

    #[test]
    fn a_tree_deeper_than_descriptors_goes() {
        // tmpfs: ext4 takes milliseconds to remove a directory. It is also what `/run` is on most hosts.
        let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
        let v = Volumes::open(&tmp.path().join("state"), &tmp.path().join("run")).unwrap();
        assert!(tree::is_mount(&v.secrets).unwrap(), "secrets have a tmpfs of their own, not the host's");
        let top = v.empty_dir("u", "deep", Medium::Disk, None).unwrap();
        let mut here = std::os::fd::OwnedFd::from(fs::File::open(&top).unwrap());
        for _ in 0..20_000 {
            mkdirat(&here, c"d", Mode::RWXU).unwrap();
            here = openat(&here, c"d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(here);
        v.teardown("u").unwrap();
        assert!(!top.exists());
        v.close().unwrap();
    }

    #[test]
    fn everything_goes_and_again_is_done() {
        let tmp = tempfile::tempdir().unwrap();
        let v = Volumes::open(&tmp.path().join("state"), &tmp.path().join("run")).unwrap();
        for pod in ["a", "b"] {
            let mem = v.empty_dir(pod, "mem", Medium::Memory(Some(1 << 20)), Some(5)).unwrap();
            assert!(fs::write(mem.join("big"), vec![0; 2 << 20]).is_err(), "the tmpfs has its limit");
            assert!(v.empty_dir_usage(pod, "mem", Medium::Memory(None), Instant::now()).unwrap() > 1 << 19);
            let disk = v.empty_dir(pod, "disk", Medium::Disk, None).unwrap();
            std::os::unix::fs::symlink("/etc", disk.join("etc")).unwrap();
            v.sub_path(pod, "c", 0, &disk, "sub", true).unwrap();
            v.file(pod, "hosts", Some(b"127.0.0.1 localhost\n"), 0o644).unwrap();
            let files = [File { path: "k".into(), bytes: vec![1], mode: 0o400, uid: None }];
            v.project(pod, "s", &files, Projection { secret: true, ..Projection::default() }).unwrap();
        }
        assert_eq!(v.pods().unwrap(), ["a", "b"].map(String::from).into());
        v.teardown("a").unwrap();
        v.teardown("a").unwrap();
        assert_eq!(v.pods().unwrap(), ["b".to_string()].into());
        v.collect(BTreeSet::new).unwrap();
        assert!(v.pods().unwrap().is_empty());
        assert!(Path::new("/etc/passwd").exists());
        v.close().unwrap();
        assert!(mounts_below(tmp.path()).unwrap().is_empty());
    }

    #[test]
    fn escaped_mount_points() {
        let line = br"36 35 98:0 / /mnt/a\040b\134c rw - ext4 x rw";
        assert_eq!(mount_point(line).unwrap(), Path::new(r"/mnt/a b\c"));
        assert_eq!(mount_point(b"short line"), None);
    }

    proptest::proptest! {
        #[test]
        fn mountinfo_never_panics(line in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = mount_point(&line);
        }
    }
}
