//! The state volume: found by its serial, or a partition of the boot disk; made when blank; grown when its disk has.
//!
//! Guarantees: a disk is written to only if it is the one that was named and is blank, or holds this cluster's state.
//! Killed at any moment, the next call goes on. Assumes: an honest flush.

mod disk;
mod ext4;
mod partition;

#[cfg(fuzzing)]
pub use partition::parse as partitions;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use api::rastos::{MachineConfig, machine::ClusterIdentity};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use serde::{Deserialize, Serialize};

use crate::init::mounts::{is_mount, mount_with};

/// Where the state is mounted: all of `/var`.
pub const AT: &str = "/var";

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named disk is not there (yet).
    #[error("waiting for the disk with serial {serial:?}; seen: {}", if seen.is_empty() { "none" } else { seen })]
    Absent {
        /// What was asked for.
        serial: String,
        /// What there is.
        seen: String,
    },
    /// There is no disk of ours to make a partition on.
    #[error("spec.state names no serial, and no disk of this machine has rastOS's partitions; seen: {0}")]
    NoBootDisk(String),
    /// No room is left for a partition.
    #[error("{disk} has no room for the state: {free} MiB free, {least} needed; give the machine a larger disk")]
    NoRoom {
        /// The disk.
        disk: String,
        /// MiB free.
        free: u64,
        /// MiB needed.
        least: u64,
    },
    /// The disk holds something else.
    #[error("{device} is neither blank nor a state volume of rastOS: {holds}; it is left alone")]
    Foreign {
        /// The disk.
        device: PathBuf,
        /// What it holds.
        holds: String,
    },
    /// The volume is another cluster's.
    #[error("{device} is the state of {theirs}, and this machine is of {ours}; it is left alone")]
    Other {
        /// The disk.
        device: PathBuf,
        /// Whose it is.
        theirs: Owner,
        /// Who we are.
        ours: Owner,
    },
    /// The disk or its filesystem failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    fn io<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing: doing.into(), source: source.into() }
    }
}

/// Whose state a volume is: `cluster.json` on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    cluster: Option<ClusterIdentity>,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.cluster {
            Some(cluster) => write!(f, "cluster {} ({})", cluster.name, cluster.uid),
            None => f.write_str("no cluster"),
        }
    }
}

impl Owner {
    fn of(config: &MachineConfig) -> Self {
        Self { cluster: config.spec.cluster.clone() }
    }

    /// Names come back, uids do not.
    fn same(&self, other: &Self) -> bool {
        let uid = |o: &Self| o.cluster.as_ref().map(|c| c.uid.to_lowercase());
        uid(self) == uid(other)
    }
}

/// Mounts the state, whatever that takes. Says where it is.
pub fn mount(config: &MachineConfig) -> Result<String, Error> {
    let device = match &config.spec.state.serial {
        Some(serial) => disk::by_serial(serial)?,
        None => partition::ensure()?,
    };
    let at = Path::new(AT);
    if !is_mount(at) {
        if ext4::blank(&device).map_err(Error::io(format!("read {}", device.display())))? {
            ext4::make(&device).map_err(Error::io(format!("make a filesystem on {}", device.display())))?;
        } else {
            refuse_another_s(&device, at, &Owner::of(config))?;
        }
        attach(&device, at)?;
    }
    match own(&device, at, &Owner::of(config)).and_then(|()| grow(&device)) {
        Ok(size) => Ok(format!("{} on {AT}, {size} MiB", device.display())),
        Err(e) => {
            // Another's: nothing of ours may be written there.
            let _busy = unmount(at, UnmountFlags::DETACH);
            Err(e)
        }
    }
}

/// Refuses another cluster's volume before anything is written there: a mount replays the journal, and their own
/// machine may be using it.
fn refuse_another_s(device: &Path, at: &Path, ours: &Owner) -> Result<(), Error> {
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    if mount_with(&device.to_string_lossy(), "ext4", at, flags, "noload").is_err() {
        // The mount proper says why.
        return Ok(());
    }
    let bytes = fs::read(at.join("cluster.json"));
    unmount(at, UnmountFlags::empty()).map_err(Error::io(format!("unmount {}", device.display())))?;
    // Without its journal a file may be missing or torn: only a clear word counts here, and `own` judges the rest.
    match bytes.ok().and_then(|bytes| serde_json::from_slice::<Owner>(&bytes).ok()) {
        Some(theirs) if !theirs.same(ours) => {
            Err(Error::Other { device: device.to_owned(), theirs, ours: ours.clone() })
        }
        _ => Ok(()),
    }
}

fn attach(device: &Path, at: &Path) -> Result<(), Error> {
    let flags = MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID;
    // Whatever is wrong on the disk, nothing more is written to it.
    match mount_with(&device.to_string_lossy(), "ext4", at, flags, "errors=remount-ro") {
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            Err(Error::Foreign { device: device.to_owned(), holds: "no filesystem that can be mounted".into() })
        }
        other => other.map_err(Error::io(format!("mount {}", device.display()))),
    }
}

/// Reads whose it is, or writes down that it is ours.
fn own(device: &Path, at: &Path, ours: &Owner) -> Result<(), Error> {
    let file = at.join("cluster.json");
    match fs::read(&file) {
        Ok(bytes) => {
            let theirs: Owner = serde_json::from_slice(&bytes).map_err(|e| Error::Foreign {
                device: device.to_owned(),
                holds: format!("its cluster.json is broken: {e}"),
            })?;
            match theirs.same(ours) {
                true => Ok(()),
                false => Err(Error::Other { device: device.to_owned(), theirs, ours: ours.clone() }),
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let doing = format!("list {}", at.display());
            let names = fs::read_dir(at).map_err(Error::io(doing))?.flatten().map(|e| e.file_name());
            let others: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).filter(|n| !begun(n)).collect();
            if !others.is_empty() {
                let holds = format!("a filesystem with {}", others[..others.len().min(5)].join(", "));
                return Err(Error::Foreign { device: device.to_owned(), holds });
            }
            write_owner(at, ours).map_err(Error::io(format!("write {}", file.display())))
        }
        Err(e) => Err(Error::io(format!("read {}", file.display()))(e)),
    }
}

/// What a filesystem holds that was just made.
fn begun(name: &str) -> bool {
    name == "lost+found" || name == "cluster.json.new"
}

fn write_owner(at: &Path, owner: &Owner) -> io::Result<()> {
    crate::sys::set_ext4_uuid(&File::open(at)?, uuid::Uuid::new_v4().into_bytes())?;
    let mut file = File::create(at.join("cluster.json.new"))?;
    file.write_all(&serde_json::to_vec(owner)?)?;
    file.sync_all()?;
    fs::rename(at.join("cluster.json.new"), at.join("cluster.json"))?;
    File::open(at)?.sync_all()
}

/// Takes all of the disk; says how many MiB that is. To be called again when the disk may have grown.
pub fn grow(device: &Path) -> Result<u64, Error> {
    let doing = || format!("grow the filesystem on {}", device.display());
    let bytes = ext4::size(device).map_err(Error::io(doing()))?;
    let root = File::open(AT).map_err(Error::io(doing()))?;
    ext4::grow(&root, bytes).map_err(Error::io(doing()))?;
    Ok(bytes >> 20)
}

/// The device that the state is on, while it is mounted.
pub fn device() -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(AT))?;
    Some(PathBuf::from(line.split(" - ").nth(1)?.split(' ').nth(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str, uid: &str) -> Owner {
        Owner { cluster: Some(ClusterIdentity { name: name.into(), uid: uid.into() }) }
    }

    #[test]
    fn names_come_back_and_uids_do_not() {
        assert!(owner("a", "1").same(&owner("b", "1")));
        assert!(!owner("a", "1").same(&owner("a", "2")));
        assert!(!owner("a", "1").same(&Owner::default()));
    }

    #[test]
    fn another_s_filesystem_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        let device = Path::new("/dev/vdb");
        let refused = own(device, dir.path(), &Owner::default()).unwrap_err().to_string();
        assert!(refused.contains("a filesystem with home") && refused.contains("left alone"), "{refused}");
        fs::write(dir.path().join("cluster.json"), serde_json::to_vec(&owner("a", "1")).unwrap()).unwrap();
        own(device, dir.path(), &owner("a", "1")).unwrap();
        let refused = own(device, dir.path(), &owner("a", "2")).unwrap_err().to_string();
        assert!(refused.contains("cluster a (1), and this machine is of cluster a (2)"), "{refused}");
    }
}
