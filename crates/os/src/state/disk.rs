//! Disks by their serial.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Error;

/// What a disk tells of itself, and where to read it: virtio, NVMe, SCSI.
const SERIALS: [&str; 3] = ["serial", "device/serial", "device/vpd_pg80"];

/// The disk of that serial.
pub fn by_serial(serial: &str) -> Result<PathBuf, Error> {
    let seen = serials();
    match seen.iter().find(|(_, theirs)| matches(theirs, serial)) {
        Some((name, _)) => Ok(Path::new("/dev").join(name)),
        None => {
            let seen: Vec<String> = seen.into_iter().map(|(name, serial)| format!("{name} {serial:?}")).collect();
            Err(Error::Absent { serial: serial.to_owned(), seen: seen.join(", ") })
        }
    }
}

/// Every disk's name and serial.
fn serials() -> Vec<(String, String)> {
    let root = Path::new("/sys/block");
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let read = |name: &str| {
        let bytes = SERIALS.iter().find_map(|file| fs::read(root.join(name).join(file)).ok())?;
        Some(text(&bytes)).filter(|serial| !serial.is_empty())
    };
    names.into_iter().filter_map(|name| read(&name).map(|serial| (name, serial))).collect()
}

/// What can be read of it: SCSI's page 0x80 has four bytes of head before the serial.
fn text(bytes: &[u8]) -> String {
    let bytes = if bytes.get(1) == Some(&0x80) { bytes.get(4..).unwrap_or_default() } else { bytes };
    let plain = bytes.iter().take_while(|b| **b != 0).copied();
    String::from_utf8_lossy(&plain.collect::<Vec<_>>()).trim().to_owned()
}

/// virtio keeps 20 characters of a volume's id, SCSI all of it.
const KEPT: usize = 20;

fn matches(disk: &str, wanted: &str) -> bool {
    let long = disk.len() >= KEPT && wanted.len() >= KEPT;
    disk == wanted || long && (disk.starts_with(wanted) || wanted.starts_with(disk))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f0c9a4e-77f1-4d2b-9a3e-5b8f0a1c2d3e";

    #[test]
    fn a_volume_s_id_is_found_whole_or_shortened() {
        assert!(matches(&ID[..20], ID) && matches(ID, &ID[..20]) && matches(ID, ID));
        assert!(!matches(&ID[..19], ID) && !matches("", ID) && !matches(ID, "") && !matches("vol-2", "vol-23"));
    }

    #[test]
    fn serials_as_disks_have_them() {
        assert_eq!(text(b"3f0c9a4e-77f1-4d2b-9"), "3f0c9a4e-77f1-4d2b-9");
        assert_eq!(text(b"\0\x80\0\x04abcd"), "abcd");
        assert_eq!(text(b"S1  \n\0\0"), "S1");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            text(&bytes);
        }
    }
}
