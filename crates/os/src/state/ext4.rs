//! An ext4 filesystem without its tools: a small one kept as the few blocks that are not zero, grown once it is mounted.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::Path,
};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

use crate::sys;

pub const BLOCK: usize = 4096;
/// What a disk writes whole, even when its power fails.
const SECTOR: usize = 512;
/// The template's size.
const SIZE: u64 = 64 << 20;
/// Each block that is not zero behind its number; zstd. `tests::the_template` makes it.
const TEMPLATE: &[u8] = include_bytes!("template.zst");
/// How much at a disk's beginning and end must be blank: there lie the marks of all that one may find on a disk.
const MARGIN: u64 = 1 << 20;

/// The least that takes the template.
pub const LEAST: u64 = SIZE;

/// The template's blocks by their numbers, the first one last.
fn template() -> io::Result<Vec<(u64, Vec<u8>)>> {
    let bytes = zstd::decode_all(TEMPLATE)?;
    let (blocks, _) = bytes.as_chunks::<{ BLOCK + 4 }>();
    let split = |b: &[u8; BLOCK + 4]| (u32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(), b[4..].to_vec());
    let mut blocks: Vec<(u64, Vec<u8>)> = blocks.iter().map(split).collect();
    blocks.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    Ok(blocks)
}

/// The size of a disk or a file.
pub fn size(device: &Path) -> io::Result<u64> {
    File::open(device)?.seek(SeekFrom::End(0))
}

/// Whether nothing is there, or only what [`make`] had written when it was interrupted.
pub fn blank(device: &Path) -> io::Result<bool> {
    let (file, size) = (File::open(device)?, size(device)?);
    let ours = template()?;
    let size = size - size % BLOCK as u64;
    let margin = MARGIN.min(size);
    let mut bytes = vec![0; margin as usize];
    for from in [0, size - margin] {
        file.read_exact_at(&mut bytes, from)?;
        for (at, block) in (from / BLOCK as u64..).zip(bytes.as_chunks::<BLOCK>().0) {
            let empty = block.iter().all(|b| *b == 0);
            let begun = || ours.iter().any(|(number, bytes)| *number == at && begun(at, bytes, block));
            if !empty && !begun() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whether it is a block of the template that may be torn: each of its sectors is there, or is still zero. The first block
/// makes it a filesystem once it is whole; a mount changes its sectors.
fn begun(at: u64, ours: &[u8], block: &[u8]) -> bool {
    let (ours_by_sector, by_sector) = (ours.chunks(SECTOR), block.chunks(SECTOR));
    let torn = ours_by_sector.zip(by_sector).all(|(ours, is)| is == ours || is.iter().all(|b| *b == 0));
    torn && (at != 0 || block != ours)
}

/// Makes the filesystem: its first block, without which there is none, after all others are on the disk.
pub fn make(device: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(device)?;
    if size(device)? < SIZE {
        return Err(io::Error::other(format!("it is smaller than {} MiB", SIZE >> 20)));
    }
    fallocate(&file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 0, SIZE)?;
    for (at, bytes) in template()? {
        if at == 0 {
            file.sync_all()?;
        }
        file.write_all_at(&bytes, at * BLOCK as u64)?;
    }
    file.sync_all()
}

/// Grows the mounted filesystem to what it may take of so many bytes, if it is smaller.
pub fn grow(root: &File, bytes: u64) -> io::Result<()> {
    let blocks = blocks_on(bytes);
    let now = fstatvfs(root)?;
    // The kernel counts what files can take; its own tables are at most a sixteenth.
    if blocks.saturating_sub(now.f_blocks) <= blocks / 16 {
        return Ok(());
    }
    sys::grow_ext4(root, blocks)
}

/// Blocks of a filesystem on so many bytes. It leaves out the end: the kernel looks in the last sector for the copy of a
/// table of partitions (`gpt` on its command line), and what containers write must not pass for one.
fn blocks_on(bytes: u64) -> u64 {
    bytes.saturating_sub(MARGIN) / BLOCK as u64
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    fn sparse(size: u64) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(size).unwrap();
        (dir, path)
    }

    /// `RAST_BLESS=1` writes the template anew, with e2fsprogs 1.47.
    #[test]
    fn the_template() {
        let (_dir, path) = sparse(SIZE);
        let identity = ["72617374-4f53-4000-8000-000000000001", "72617374-4f53-4000-8000-000000000002"];
        let made = Command::new("mke2fs")
            .env("E2FSPROGS_FAKE_TIME", "1")
            .args(["-q", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "8192", "-J", "size=8", "-m", "3"])
            .args(["-L", "rastos-state", "-U", identity[0]])
            .args(["-E", &format!("hash_seed={},lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0", identity[1])])
            .args(["-O", "64bit,metadata_csum,metadata_csum_seed,^orphan_file"])
            .arg(&path)
            .status()
            .expect("mke2fs of e2fsprogs");
        assert!(made.success());
        let mut kept = Vec::new();
        for (at, block) in fs::read(&path).unwrap().chunks(BLOCK).enumerate() {
            if block.iter().any(|b| *b != 0) {
                kept.extend_from_slice(&(at as u32).to_le_bytes());
                kept.extend_from_slice(block);
            }
        }
        if std::env::var_os("RAST_BLESS").is_some() {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/state/template.zst");
            fs::write(file, zstd::encode_all(kept.as_slice(), 19).unwrap()).unwrap();
            return;
        }
        assert!(zstd::decode_all(TEMPLATE).unwrap() == kept, "RAST_BLESS=1 writes it anew");
    }

    #[test]
    fn no_container_s_bytes_are_in_a_disk_s_last_sector() {
        for bytes in [2 * SIZE, 2 * SIZE + 1, (1 << 40) - SECTOR as u64] {
            assert!(blocks_on(bytes) * BLOCK as u64 <= bytes - MARGIN);
        }
        assert_eq!(blocks_on(2 * MARGIN), MARGIN / BLOCK as u64);
    }

    #[test]
    fn what_is_made_is_sound_and_no_longer_blank() {
        let (_dir, path) = sparse(200 << 20);
        assert!(blank(&path).unwrap());
        make(&path).unwrap();
        assert!(!blank(&path).unwrap());
        let checked = Command::new("e2fsck").args(["-fn"]).arg(&path).output().expect("e2fsck of e2fsprogs");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }

    #[test]
    fn an_interrupted_one_is_begun_anew() {
        let (_dir, path) = sparse(SIZE);
        make(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        // The first block is the last to be written; all that is in it lies in its third and fourth sectors.
        for (written, interrupted) in [(4, false), (3, true), (0, true)] {
            file.write_all_at(&vec![0; BLOCK - written * SECTOR], (written * SECTOR) as u64).unwrap();
            assert_eq!(blank(&path).unwrap(), interrupted, "{written} sectors");
        }
        // Any other may have been torn before.
        for (at, bytes) in template().unwrap() {
            file.write_all_at(&bytes[..SECTOR], at * BLOCK as u64).unwrap();
            file.write_all_at(&[0; BLOCK - SECTOR], at * BLOCK as u64 + SECTOR as u64).unwrap();
            assert!(blank(&path).unwrap(), "block {at}");
        }
    }

    #[test]
    fn anything_else_is_not_blank() {
        for at in [0, 510, 1024, 4096, 0x8001, 0x10040, (64 << 20) - 512] {
            let (_dir, path) = sparse(SIZE);
            File::options().write(true).open(&path).unwrap().write_all_at(b"x", at).unwrap();
            assert!(!blank(&path).unwrap(), "{at}");
        }
        let (_dir, path) = sparse(4096);
        assert!(blank(&path).unwrap() && make(&path).is_err());
    }
}
