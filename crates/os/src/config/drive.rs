//! Configuration on a drive: OpenStack's config drive (label `config-2`) and NoCloud (`cidata`), ISO 9660 or FAT.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use rustix::mount::{MountFlags, UnmountFlags, unmount};

use super::{Found, Source};
use crate::init::mounts::mount_with;

/// Where drives are looked into, one after the other.
const AT: &str = "/run/rastos.drive";
const LIMIT: u64 = 1 << 20;

/// What a drive's first sectors say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The kernel's name of its filesystem.
    pub kind: &'static str,
    /// In lower case, for FAT knows no other than capitals.
    pub name: String,
}

/// The drives that hold a configuration: NoCloud first, which somebody has added on purpose.
pub fn find() -> Vec<Found> {
    let Ok(entries) = fs::read_dir("/sys/class/block") else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !["loop", "ram", "dm-", "zram"].iter().any(|own| name.starts_with(own)));
    names.sort();
    let mut found: Vec<Found> = names.iter().filter_map(|name| look(&Path::new("/dev").join(name))).collect();
    found.sort_by_key(|f| f.source != Source::NoCloud);
    found
}

fn look(device: &Path) -> Option<Found> {
    let mut head = vec![0; 0x8800];
    let length = read_up_to(&File::open(device).ok()?, &mut head).ok()?;
    let label = label(&head[..length])?;
    let (source, directory, names): (_, _, &[&str]) = match label.name.as_str() {
        "config-2" => (Source::ConfigDrive, "openstack/latest", &["meta_data.json", "network_data.json", "user_data"]),
        "cidata" => (Source::NoCloud, "", &["meta-data", "user-data"]),
        _ => return None,
    };
    let mut found = Found::at(source);
    if let Err(e) = read(device, label.kind, directory, names, &mut found) {
        found.trouble.push(format!("{source}: {}: {e}", device.display()));
    }
    Some(found)
}

fn read(device: &Path, kind: &str, directory: &str, names: &[&str], found: &mut Found) -> io::Result<()> {
    let at = Path::new(AT);
    fs::create_dir_all(at)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_with(&device.to_string_lossy(), kind, at, flags, "")?;
    let mut read = || {
        for name in names {
            let file = match File::open(at.join(directory).join(name)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let mut text = String::new();
            file.take(LIMIT).read_to_string(&mut text)?;
            found.take(name, text);
        }
        Ok(())
    };
    let read = read();
    unmount(at, UnmountFlags::DETACH)?;
    read
}

fn read_up_to(file: &File, into: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < into.len() {
        match file.read_at(&mut into[at..], at as u64)? {
            0 => break,
            n => at += n,
        }
    }
    Ok(at)
}

/// The label of the filesystem that begins like this.
pub fn label(head: &[u8]) -> Option<Label> {
    let text = |from: usize, length: usize| {
        let bytes = head.get(from..from + length)?;
        Some(String::from_utf8_lossy(bytes).trim_end_matches(['\0', ' ']).to_lowercase())
    };
    if head.get(0x8001..0x8006) == Some(b"CD001") {
        return Some(Label { kind: "iso9660", name: text(0x8028, 32)? });
    }
    if head.get(510..512) == Some(&[0x55, 0xaa]) {
        for (magic, at) in [(54, 43), (82, 71)] {
            if head.get(magic..magic + 3) == Some(b"FAT") {
                return Some(Label { kind: "vfat", name: text(at, 11)? });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_both_kinds() {
        let mut iso = vec![0; 0x8800];
        iso[0x8001..0x8006].copy_from_slice(b"CD001");
        iso[0x8028..0x8048].copy_from_slice(format!("{:32}", "config-2").as_bytes());
        assert_eq!(label(&iso), Some(Label { kind: "iso9660", name: "config-2".into() }));
        let mut fat = vec![0; 512];
        fat[510..].copy_from_slice(&[0x55, 0xaa]);
        fat[82..87].copy_from_slice(b"FAT32");
        fat[71..82].copy_from_slice(b"CIDATA     ");
        assert_eq!(label(&fat), Some(Label { kind: "vfat", name: "cidata".into() }));
        assert_eq!(label(&[]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            label(&bytes);
        }
    }
}
