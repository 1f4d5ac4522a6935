//! The disk that this system was started from: where it is, and whether its boot partition is what was built.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags, unmount};
use sha2::{Digest as _, Sha256};

use crate::{init::mounts::mount_with, slot::Slot};

/// What the root lies on: the initrd's one mapped device.
const BELOW_ROOT: &str = "/sys/block/dm-0/slaves";
const DEVICES: &str = "/sys/class/block";
const BOOT: &str = "boot";
/// Where the boot partition is looked at.
const AT: &str = "/run/rastos-boot";
/// What the root knows of the files in its slot of the boot partition: the digest and the name of each.
pub const DIGESTS: &str = "/usr/lib/rastos/boot.sha256";

/// The name of the disk whose partition holds the root; none where the root is no partition.
pub fn disk() -> Option<String> {
    let part = fs::read_dir(BELOW_ROOT).ok()?.flatten().next()?.file_name();
    disk_of(&Path::new(DEVICES).join(part))
}

/// A partition lies in its disk's directory.
fn disk_of(part: &Path) -> Option<String> {
    if !part.join("partition").exists() {
        return None;
    }
    let disk = fs::canonicalize(part).ok()?.parent()?.file_name()?.to_owned();
    Some(disk.to_string_lossy().into_owned())
}

/// The files of this system's slot that are not what was built; none on a machine without a boot partition.
pub fn check(command_line: &str) -> io::Result<Vec<String>> {
    let (Some(slot), Some(device)) = (Slot::on(command_line), boot_partition()) else { return Ok(Vec::new()) };
    let digests = fs::read_to_string(DIGESTS)?;
    fs::create_dir_all(AT)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_with(&device.to_string_lossy(), "vfat", Path::new(AT), flags, "")?;
    let wrong = differing(&Path::new(AT).join(slot.name()), &digests);
    unmount(AT, UnmountFlags::empty())?;
    Ok(wrong)
}

fn boot_partition() -> Option<PathBuf> {
    let disk = fs::read_dir(Path::new("/sys/block").join(disk()?)).ok()?;
    let named = |part: &PathBuf| {
        let told = fs::read_to_string(part.join("uevent")).unwrap_or_default();
        told.lines().any(|line| line.strip_prefix("PARTNAME=") == Some(BOOT))
    };
    let part = disk.flatten().map(|entry| entry.path()).find(named)?;
    Some(Path::new("/dev").join(part.file_name()?))
}

/// The names of files that are missing, cannot be read, or are not of the digest that stands before their names.
fn differing(directory: &Path, digests: &str) -> Vec<String> {
    let known = digests.lines().filter_map(|line| line.split_once("  "));
    let wrong = known.filter(|(digest, name)| sha256(&directory.join(name)).ok().as_deref() != Some(*digest));
    wrong.map(|(_, name)| name.to_owned()).collect()
}

fn sha256(file: &Path) -> io::Result<String> {
    let (mut file, mut hash) = (File::open(file)?, Sha256::new());
    let mut bytes = vec![0; 64 << 10];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&bytes[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_s_disk() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("devices/vdb");
        fs::create_dir_all(disk.join("vdb2")).unwrap();
        fs::write(disk.join("vdb2/partition"), "2\n").unwrap();
        for name in ["vdb", "vdb2"] {
            let to = if name == "vdb" { disk.clone() } else { disk.join(name) };
            std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
        }
        assert_eq!(disk_of(&dir.path().join("vdb2")).as_deref(), Some("vdb"));
        assert_eq!(disk_of(&dir.path().join("vdb")), None);
    }

    #[test]
    fn what_is_not_what_was_built_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kernel"), b"abc").unwrap();
        fs::write(dir.path().join("initrd"), b"abd").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let digests = ["kernel", "initrd", "more"].map(|name| format!("{abc}  {name}\n")).concat();
        assert_eq!(differing(dir.path(), &digests), ["initrd", "more"]);
    }
}
