//! emptyDir.

use std::{fs, path::PathBuf, time::Instant};

use crate::{Result, Volumes, component, error::At, tree};

/// What an emptyDir is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// The node's disk.
    Disk,
    /// A tmpfs of at most so many bytes (`None`: half of the node's memory).
    Memory(Option<u64>),
}

impl Volumes {
    /// An empty directory that lives as long as the pod. Found again with its contents when it exists.
    pub fn empty_dir(&self, pod: &str, name: &str, medium: Medium, fs_group: Option<u32>) -> Result<PathBuf> {
        match medium {
            Medium::Disk => {
                let path = self.volume(pod, name)?;
                if !path.exists() {
                    tree::make_private(path.parent().unwrap_or(&path))?;
                    // Aside first: who finds it finds it finished.
                    let stage = path.with_file_name(format!(".{name}"));
                    tree::remove(&stage)?;
                    tree::make(&stage, 0o777)?;
                    tree::give(&stage, fs_group, 0o777)?;
                    fs::rename(&stage, &path).at("rename", &stage)?;
                }
                Ok(path)
            }
            Medium::Memory(size) => {
                let path = self.memory.join(component(pod)?).join(component(name)?);
                tree::make_private(&path)?;
                if !tree::is_mount(&path)? {
                    let owner = fs_group.map_or("mode=777".into(), |gid| format!("mode=2777,gid={gid}"));
                    let size = size.map_or_else(|| "50%".into(), |bytes| bytes.to_string());
                    tree::mount_tmpfs(&path, format!("{owner},size={size}"))?;
                }
                Ok(path)
            }
        }
    }

    /// Bytes that an emptyDir holds, as far as they are counted by `until`; 0 when it does not exist.
    pub fn empty_dir_usage(&self, pod: &str, name: &str, medium: Medium, until: Instant) -> Result<u64> {
        match medium {
            Medium::Disk => {
                let path = self.volume(pod, name)?;
                Ok(walk::usage(&path, until).at("measure", &path)?.bytes)
            }
            Medium::Memory(_) => {
                let path = self.memory.join(component(pod)?).join(component(name)?);
                if !tree::is_mount(&path)? {
                    return Ok(0);
                }
                let stat = rustix::fs::statvfs(&path).at("stat", &path)?;
                Ok((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn found_only_when_finished() {
        let tmp = tempfile::tempdir().unwrap();
        let v = Volumes::open(&tmp.path().join("state"), &tmp.path().join("run")).unwrap();
        let killed = tmp.path().join("state/pods/u/volumes/.disk");
        fs::create_dir_all(killed.join("half")).unwrap();
        for (name, medium) in [("disk", Medium::Disk), ("memory", Medium::Memory(None))] {
            for _ in 0..2 {
                let path = v.empty_dir("u", name, medium, Some(77)).unwrap();
                let meta = fs::metadata(&path).unwrap();
                assert_eq!((meta.gid(), meta.mode() & 0o7777), (77, 0o2777), "{name}");
                assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "{name}");
            }
        }
        let path = v.empty_dir("u", "plain", Medium::Memory(Some(4096)), None).unwrap();
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o777);
        v.close().unwrap();
        assert!(!killed.exists());
    }
}
