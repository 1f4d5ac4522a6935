//! ext4's superblock and its copies: a damaged one is made anew of a copy, for without it there is no filesystem.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use super::ext4::BLOCK;

const SIZE: usize = 1024;
/// Where the first one lies.
const FIRST: u64 = 1024;
/// Blocks in a group.
const GROUP: u64 = 8 * BLOCK as u64;
/// Groups with a copy, as far as one looks: 1, and powers of 3, 5 and 7.
const GROUPS: [u64; 7] = [1, 3, 5, 7, 9, 25, 27];

const MAGIC: usize = 0x38;
const OWN_GROUP: usize = 0x5a;
const INCOMPATIBLE: usize = 0x60;
const LABEL: usize = 0x78;
const CHECKSUM: usize = 0x3fc;
/// The journal is to be read before anything else.
const RECOVER: u8 = 4;

type Superblock = [u8; SIZE];

/// A copy that may take the place of a damaged superblock.
pub struct Spare {
    block: u64,
    bytes: Superblock,
}

impl Spare {
    /// The first sound copy on a device whose superblock is damaged; none where it is not, or where there is no copy.
    pub fn of(device: &Path) -> io::Result<Option<Self>> {
        let file = File::open(device)?;
        let read = |at: u64| {
            let mut bytes = [0; SIZE];
            file.read_exact_at(&mut bytes, at).map(|()| bytes)
        };
        // A sound one of somebody else's is no damaged one of ours, whatever is left of ours behind it.
        if is_sound(&read(FIRST)?) {
            return Ok(None);
        }
        let copies = GROUPS.iter().map(|group| group * GROUP);
        let mut sound = copies.filter_map(|block| Some(Self { block, bytes: read(block * BLOCK as u64).ok()? }));
        Ok(sound.find(|spare| is_ours(&spare.bytes)))
    }

    /// The mount option that makes the kernel look at this copy instead.
    pub fn option(&self) -> String {
        // In KiB, whatever a block is.
        format!("sb={}", self.block * (BLOCK as u64 >> 10))
    }

    /// Writes it in the place of the first one.
    pub fn restore(&self, device: &Path) -> io::Result<()> {
        let file = File::options().write(true).open(device)?;
        file.write_all_at(&as_first(self.bytes), FIRST)?;
        file.sync_all()
    }
}

/// A copy as the first superblock. Copies do not tell whether the journal holds anything: it is to be read, or what was
/// committed there would be thrown away.
fn as_first(mut bytes: Superblock) -> Superblock {
    bytes[OWN_GROUP..OWN_GROUP + 2].fill(0);
    bytes[INCOMPATIBLE] |= RECOVER;
    let sum = crc32c(&bytes[..CHECKSUM]);
    bytes[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Whether it is whole.
fn is_sound(bytes: &Superblock) -> bool {
    bytes[MAGIC..MAGIC + 2] == [0x53, 0xef] && bytes[CHECKSUM..] == crc32c(&bytes[..CHECKSUM]).to_le_bytes()
}

/// Whether it is whole, and of a filesystem that was made here.
fn is_ours(bytes: &Superblock) -> bool {
    is_sound(bytes) && bytes[LABEL..].starts_with(super::partition::NAME.as_bytes())
}

/// CRC-32C as ext4 keeps it: begun with ones, not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_checksum_is_castagnoli_s() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    fn make(label: &str, path: &Path) {
        let mut made = Command::new("mke2fs");
        made.args(["-q", "-t", "ext4", "-b", "4096", "-O", "metadata_csum,64bit", "-L", label]).arg(path).arg("300M");
        assert!(made.status().expect("mke2fs of e2fsprogs").success());
    }

    #[test]
    fn a_damaged_one_is_made_anew_of_its_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        make("rastos-state", &path);
        assert!(Spare::of(&path).unwrap().is_none(), "it is sound");
        let file = File::options().write(true).open(&path).unwrap();
        for at in [MAGIC, 0x04, LABEL] {
            file.write_all_at(b"\xff", FIRST + at as u64).unwrap();
            let spare = Spare::of(&path).unwrap().expect("a copy");
            assert_eq!(spare.option(), "sb=131072");
            spare.restore(&path).unwrap();
            assert!(Spare::of(&path).unwrap().is_none());
        }
        // What is left to do is what the journal's flag says.
        let checked = Command::new("e2fsck").args(["-fy"]).arg(&path).output().expect("e2fsck of e2fsprogs");
        let again = Command::new("e2fsck").args(["-fn"]).arg(&path).output().unwrap();
        assert!(
            checked.status.code() < Some(4) && again.status.success(),
            "{}",
            String::from_utf8_lossy(&checked.stdout)
        );
    }

    #[test]
    fn another_s_copy_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        make("home", &path);
        File::options().write(true).open(&path).unwrap().write_all_at(&[0; 4096], 0).unwrap();
        assert!(Spare::of(&path).unwrap().is_none());
    }

    #[test]
    fn a_copy_of_ours_behind_another_s_filesystem_is_no_spare() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        make("rastos-state", &path);
        let mut first = [0; SIZE];
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.read_exact_at(&mut first, FIRST).unwrap();
        first[LABEL..LABEL + 4].copy_from_slice(b"home");
        let sum = crc32c(&first[..CHECKSUM]);
        first[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&first, FIRST).unwrap();
        assert!(Spare::of(&path).unwrap().is_none());
    }
}
