//! emptyDir.

use std::path::PathBuf;

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
        let (path, fresh) = match medium {
            Medium::Disk => {
                let path = self.volume(pod, name)?;
                let fresh = !path.exists();
                tree::make_private(path.parent().unwrap_or(&path))?;
                (path, fresh)
            }
            Medium::Memory(size) => {
                let dir = self.memory.join(component(pod)?);
                let path = dir.join(component(name)?);
                tree::make_private(&path)?;
                let fresh = !tree::is_mount(&path)?;
                if fresh {
                    tree::mount_tmpfs(&path, 0o777, size)?;
                }
                (path, fresh)
            }
        };
        if fresh {
            tree::make(&path, 0o777)?;
            tree::give(&path, fs_group, 0o777)?;
        }
        Ok(path)
    }

    /// Bytes that an emptyDir holds; 0 when it does not exist.
    pub fn empty_dir_usage(&self, pod: &str, name: &str, medium: Medium) -> Result<u64> {
        match medium {
            Medium::Disk => crate::usage(&self.volume(pod, name)?),
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
