//! Volumes of pods: local directories, memory, and files projected from the API.
//!
//! Knows nothing of the API. All of a pod's lies below directories named by its uid, so [`Volumes::teardown`] needs
//! no record: what exists is what there is to remove. Calls block (a handful of system calls each); a caller on an
//! async runtime runs them where blocking is allowed.
//!
//! ```text
//! STATE/pods/UID/volumes/NAME      disk
//! STATE/pods/UID/subpaths/C/N      bind mounts of resolved subPaths
//! STATE/pods/UID/files/NAME        single files (hosts, resolv.conf, termination logs)
//! RUN/volumes/files/UID/NAME       secrets: one tmpfs for all pods
//! RUN/volumes/memory/UID/NAME      a tmpfs each
//! ```

mod empty;
mod error;
mod host;
mod project;
mod subpath;
mod teardown;
mod tree;

use std::{
    path::{Component, Path, PathBuf},
    time::Instant,
};

pub use empty::Medium;
pub use error::{Error, Faults, Result};
pub use host::{HostKind, host_path};
pub use project::{File, Projection};

use error::At;

/// The volumes of all pods of one instance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Volumes {
    pods: PathBuf,
    /// Below one tmpfs: nothing here reaches a disk.
    secrets: PathBuf,
    memory: PathBuf,
}

impl Volumes {
    /// Uses `state` (kept over reboots) and `run` (emptied by a reboot). Mounts one tmpfs below `run`, if it is not
    /// there yet, that holds the secrets of all pods; [`Volumes::close`] unmounts it.
    pub fn open(state: &Path, run: &Path) -> Result<Self> {
        let root = run.join("volumes");
        let (pods, secrets, memory) = (state.join("pods"), root.join("files"), root.join("memory"));
        for dir in [&pods, &memory, &secrets] {
            tree::make_private(dir)?;
        }
        // Its own, with its own limit, though `run` may be one already: tenants' secrets shall not fill the host's.
        if !tree::is_mount(&secrets)? {
            tree::mount_tmpfs(&secrets, "mode=750,size=10%".into())?;
        }
        Ok(Self { pods, secrets, memory })
    }

    /// Takes down every pod's volumes and the common tmpfs; what is on disk stays.
    pub fn close(&self) -> std::result::Result<(), Faults> {
        let mut faults = Faults::default();
        let memory = self.memory.parent().unwrap_or(&self.memory);
        faults.note(teardown::unmount_below(&self.pods));
        faults.note(teardown::unmount_below(memory));
        if faults.is_empty() {
            faults.note(tree::remove(memory));
        }
        faults.into_result()
    }

    /// A single file of a pod, for a bind mount. Written in place, so that a running container sees it change.
    /// An existing file is kept as it is when `bytes` is `None`.
    pub fn file(&self, pod: &str, name: &str, bytes: Option<&[u8]>, mode: u32) -> Result<PathBuf> {
        use std::{io::Write, os::unix::fs::OpenOptionsExt, os::unix::fs::PermissionsExt};
        let dir = self.disk(pod)?.join("files");
        tree::make_private(&dir)?;
        let path = self.file_path(pod, name)?;
        let mut open = std::fs::OpenOptions::new();
        open.write(true).create(true).truncate(bytes.is_some()).mode(mode).custom_flags(libc_nofollow());
        let mut file = open.open(&path).at("open", &path)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode)).at("set the mode of", &path)?;
        if let Some(bytes) = bytes {
            file.write_all(bytes).at("write", &path)?;
        }
        Ok(path)
    }

    /// Bytes that a pod's single files hold: containers may write to them.
    pub fn files_usage(&self, pod: &str, until: Instant) -> Result<u64> {
        let files = self.disk(pod)?.join("files");
        Ok(walk::usage(&files, until).at("measure", &files)?.bytes)
    }

    /// Where [`Volumes::file`] puts a file.
    pub fn file_path(&self, pod: &str, name: &str) -> Result<PathBuf> {
        Ok(self.disk(pod)?.join("files").join(component(name)?))
    }

    fn disk(&self, pod: &str) -> Result<PathBuf> {
        Ok(self.pods.join(component(pod)?))
    }

    fn volume(&self, pod: &str, name: &str) -> Result<PathBuf> {
        Ok(self.disk(pod)?.join("volumes").join(component(name)?))
    }
}

/// A name that is one component of a path and leads nowhere else.
fn component(name: &str) -> Result<&str> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(one)), None) if one == name && !name.contains('\0') => Ok(name),
        _ => Err(Error::Name { name: name.into(), why: "must be a single path component" }),
    }
}

/// The components of a relative path that stays below its start.
fn relative(path: &str) -> Result<Vec<&str>> {
    let refuse = |why| Err(Error::Name { name: path.into(), why });
    if path.contains('\0') {
        return refuse("contains NUL");
    }
    if path.len() > 4096 {
        return refuse("is longer than 4096 bytes");
    }
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(p) => parts.push(p.to_str().expect("a part of a str")),
            Component::CurDir => {}
            Component::ParentDir => return refuse("contains '..'"),
            Component::RootDir | Component::Prefix(_) => return refuse("is absolute"),
        }
    }
    Ok(parts)
}

fn libc_nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside() {
        for bad in ["", ".", "..", "a/b", "/a", "a/", "../x", "a\0b"] {
            assert!(component(bad).is_err(), "{bad:?}");
        }
        assert!(component("..data-like").is_ok());
        assert_eq!(relative("a//b/./c").unwrap(), ["a", "b", "c"]);
        for bad in ["/etc", "a/../b", "..", "a\0"] {
            assert!(relative(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(s in ".*") {
            let _ = component(&s);
            if let Ok(parts) = relative(&s) {
                proptest::prop_assert!(parts.iter().all(|p| *p != ".." && !p.contains('/')));
            }
        }
    }
}
