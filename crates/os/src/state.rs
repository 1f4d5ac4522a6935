//! The state volume: found by its serial, or a partition of the boot disk; made when blank; grown when its disk has.
//!
//! Guarantees: a disk is written to only if it is the one that was named and is blank, or holds this cluster's state.
//! Killed at any moment, the next call goes on. Assumes: an honest flush.

mod disk;
mod ext4;
mod partition;
mod superblock;

#[cfg(fuzzing)]
pub use partition::parse as partitions;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use api::rastos::{MachineConfig, machine::ClusterIdentity};
use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
    mount::{MountFlags, UnmountFlags, unmount},
};
use serde::{Deserialize, Serialize};

use crate::init::mounts::{is_mount, mount_with};

/// Where the state is mounted: all of `/var`.
pub const AT: &str = "/var";

/// What is to be done about damage.
const REPAIR: &str = "repair it with e2fsck on another machine, or put a backup in its place";

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
    #[error("spec.state names no serial, and this system was started from no partition; seen: {0}")]
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
    /// The filesystem is damaged beyond what is mended here.
    #[error(
        "{device} is damaged: {source}; it is left as it is: repair it with e2fsck on another machine, or restore it"
    )]
    Damaged {
        /// The disk.
        device: PathBuf,
        /// What the kernel says.
        source: io::Error,
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

/// Mounts the state, whatever that takes; a new one is small until [`grow`]. Says where it is, and how large its disk is.
pub fn mount(config: &MachineConfig) -> Result<String, Error> {
    let device = match &config.spec.state.serial {
        Some(serial) => disk::by_serial(serial)?,
        None => partition::ensure()?,
    };
    let (at, ours) = (Path::new(AT), Owner::of(config));
    let mut mended = "";
    if !is_mount(at) {
        if ext4::blank(&device).map_err(Error::io(format!("read {}", device.display())))? {
            ext4::make(&device).map_err(Error::io(format!("make a filesystem on {}", device.display())))?;
        } else if mend(&device, at, &ours)? {
            mended = ", its damaged superblock made anew of a copy";
        }
        attach(&device, at)?;
    }
    match own(&device, at, &ours).and_then(|()| size(&device)) {
        Ok(bytes) => Ok(format!("{} on {AT}, {} MiB{mended}", device.display(), bytes >> 20)),
        Err(e) => {
            // Another's: nothing of ours may be written there.
            let _busy = unmount(at, UnmountFlags::DETACH);
            Err(e)
        }
    }
}

/// Repairs the superblock of our own volume, if it wants that.
fn mend(device: &Path, at: &Path, ours: &Owner) -> Result<bool, Error> {
    let doing = || format!("look at the superblocks of {}", device.display());
    let spare = superblock::Spare::of(device).map_err(Error::io(doing()))?;
    let options = spare.as_ref().map_or("noload".to_owned(), |spare| format!("noload,{}", spare.option()));
    let owner = owner(device, at, &options)?;
    if let Some(theirs) = owner.as_ref().filter(|theirs| !theirs.same(ours)) {
        return Err(Error::Other { device: device.to_owned(), theirs: theirs.clone(), ours: ours.clone() });
    }
    // A copy may have outlived its filesystem, behind another that took its place: only a word of ours in it counts.
    match spare.filter(|_| owner.is_some()) {
        Some(spare) => spare.restore(device).map(|()| true).map_err(Error::io(doing())),
        None => Ok(false),
    }
}

/// Whom a volume names, before anything is written there: a mount replays the journal, and another cluster's own machine
/// may be using it. None where it cannot be mounted so, of which the mount proper says why, or names nobody.
fn owner(device: &Path, at: &Path, options: &str) -> Result<Option<Owner>, Error> {
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    if mount_with(&device.to_string_lossy(), "ext4", at, flags, options).is_err() {
        return Ok(None);
    }
    let bytes = fs::read(at.join("cluster.json"));
    unmount(at, UnmountFlags::empty()).map_err(Error::io(format!("unmount {}", device.display())))?;
    // Without its journal a file may be missing or torn: only a clear word counts here, and `own` judges the rest.
    Ok(bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Who may take the blocks that the filesystem keeps back, besides those with CAP_SYS_RESOURCE, which no container has
/// unless it is given to it. Without this it would be uid 0: most containers.
const NOBODY: u32 = u32::MAX - 1;

fn attach(device: &Path, at: &Path) -> Result<(), Error> {
    let flags = MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID;
    // Whatever is found wrong on the disk, nothing more is written to it.
    let options = format!("errors=remount-ro,resuid={NOBODY}");
    mount_with(&device.to_string_lossy(), "ext4", at, flags, &options).map_err(|e| {
        let device = device.to_owned();
        match Errno::from_io_error(&e) {
            Some(Errno::INVAL) => Error::Foreign { device, holds: "no filesystem that can be mounted".into() },
            Some(Errno::BADMSG | Errno::UCLEAN | Errno::IO) => Error::Damaged { device, source: e },
            _ => Error::Io { doing: format!("mount {}", device.display()), source: e },
        }
    })
}

/// What is wrong with the mounted filesystem, as far as the kernel has seen.
pub fn damage() -> Option<String> {
    let device = device()?;
    let told = Path::new("/sys/fs/ext4").join(device.file_name()?);
    let read = |name: &str| fs::read_to_string(told.join(name)).unwrap_or_default().trim().to_owned();
    // The first one: later ones follow from it, and change from moment to moment.
    let place = read("first_error_func");
    if place.is_empty() {
        return None;
    }
    let read_only = statvfs(AT).is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::RDONLY));
    Some(format!(
        "{} is damaged: {place} has found an error, inode {}, block {}{}; {REPAIR}",
        device.display(),
        read("first_error_ino"),
        read("first_error_block"),
        if read_only { "; nothing is written to it any more" } else { "" },
    ))
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

/// Takes all of the disk. To be called again when the disk may have grown.
pub fn grow(device: &Path) -> Result<(), Error> {
    let bytes = size(device)?;
    let root = File::open(AT).map_err(Error::io(format!("open {AT}")))?;
    ext4::grow(&root, bytes).map_err(Error::io(format!("grow the filesystem on {}", device.display())))
}

fn size(device: &Path) -> Result<u64, Error> {
    ext4::size(device).map_err(Error::io(format!("look at {}", device.display())))
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
