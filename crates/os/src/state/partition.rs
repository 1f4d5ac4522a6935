//! The state's partition on the boot disk, of a machine whose configuration names no disk.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use gpt::{GptConfig, GptDisk, partition_types};

use super::{Error, ext4};
use crate::{boot, sys};

/// The partition's name.
pub const NAME: &str = "rastos-state";

const SECTOR: u64 = 512;
/// Partitions begin at a MiB.
const ALIGN: u64 = (1 << 20) / SECTOR;

/// Where there is room for the state: its first sector and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The partition's number.
    pub number: u32,
    /// The first sector.
    pub start: u64,
    /// Sectors.
    pub length: u64,
    /// It is there and shorter.
    pub grown: bool,
}

/// Makes or grows the partition, and says where it is.
pub fn ensure() -> Result<PathBuf, Error> {
    let name = boot_disk()?;
    let path = Path::new("/dev").join(&name);
    let doing = |what: &str| format!("{what} the partitions of {}", path.display());
    let failed =
        |what: &'static str| move |e: gpt::GptError| Error::io(doing_to(what, &name))(std::io::Error::other(e));
    let file = File::options().read(true).write(true).open(&path).map_err(Error::io(doing("open")))?;
    let again = file.try_clone().map_err(Error::io(doing("open")))?;
    let size = ext4::size(&path).map_err(Error::io(doing("read")))?;
    let mut disk = GptConfig::new().writable(true).open_from_device(file).map_err(failed("read"))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed =
        |what: &'static str| move |e: gpt::GptError| Error::io(doing_to(what, &name))(std::io::Error::other(e));
    if let Some(room) = plan(&disk, size, &path)? {
        if !room.grown {
            clear(&again, room).map_err(Error::io(doing("clear the room for")))?;
        }
        write(&mut disk, room).map_err(failed("write"))?;
        again.sync_all().map_err(Error::io(doing("write")))?;
        sys::announce_partition(&again, room.number, room.start * SECTOR, room.length * SECTOR)
            .map_err(Error::io(doing("announce")))?;
    }
    let number = disk.partitions().iter().find(|(_, p)| p.name == NAME).map(|(number, _)| *number).unwrap_or_default();
    // The kernel makes the node before the call above returns; a disk whose name ends in a digit has a p in between.
    let between = if path.to_string_lossy().ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    Ok(PathBuf::from(format!("{}{between}{number}", path.display())))
}

fn doing_to(what: &str, disk: &str) -> String {
    format!("{what} the partitions of {disk}")
}

/// The disk that this system was started from; no other one is ever taken for it.
fn boot_disk() -> Result<String, Error> {
    boot::disk().ok_or_else(|| {
        let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Error::NoBootDisk(names.join(" "))
    })
}

/// What is to be done on a disk of this size; `None` when the partition is there and takes all it can.
fn plan<D>(disk: &GptDisk<D>, size: u64, path: &Path) -> Result<Option<Room>, Error> {
    let end = (size / SECTOR).saturating_sub(34) / ALIGN * ALIGN; // the backup table lies behind
    let used = |p: &&gpt::partition::Partition| p.is_used();
    let wrong =
        |p: &&gpt::partition::Partition| p.is_used() && (p.first_lba > p.last_lba || p.last_lba >= size / SECTOR);
    if let Some(wrong) = disk.partitions().values().find(wrong) {
        let holds = format!("a partition from sector {} to sector {}", wrong.first_lba, wrong.last_lba);
        return Err(Error::Foreign { device: path.to_owned(), holds });
    }
    if let Some((number, old)) = disk.partitions().iter().find(|(_, p)| p.is_used() && p.name == NAME) {
        let next = disk.partitions().values().filter(used).map(|p| p.first_lba).filter(|first| *first > old.last_lba);
        let length = next.min().unwrap_or(end).min(end).saturating_sub(old.first_lba);
        let grown = length > old.last_lba + 1 - old.first_lba;
        return Ok(grown.then_some(Room { number: *number, start: old.first_lba, length, grown }));
    }
    let last = disk.partitions().values().filter(used).map(|p| p.last_lba + 1).max().unwrap_or(ALIGN);
    let start = last.next_multiple_of(ALIGN);
    let length = end.saturating_sub(start);
    if length * SECTOR < ext4::LEAST {
        let (free, least) = ((length * SECTOR) >> 20, ext4::LEAST >> 20);
        return Err(Error::NoRoom { disk: path.display().to_string(), free, least });
    }
    let number = (1..).find(|n| disk.partitions().get(n).is_none_or(|p| !p.is_used())).unwrap_or(1);
    Ok(Some(Room { number, start, length, grown: false }))
}

/// Empties both ends of a partition that is to be: in free space lies what others left, for one the backup table
/// of an image whose disk has grown, and nothing but a blank partition is ever formatted.
fn clear(disk: &File, room: Room) -> io::Result<()> {
    let zeros = vec![0; (ALIGN * SECTOR) as usize];
    for at in [room.start, room.start + room.length - ALIGN] {
        disk.write_all_at(&zeros, at * SECTOR)?;
    }
    disk.sync_all()
}

/// Writes the table, with the backup moved to the end of a disk that has grown.
fn write(disk: &mut GptDisk<File>, room: Room) -> Result<(), gpt::GptError> {
    let mut partitions = disk.take_partitions();
    match partitions.get_mut(&room.number).filter(|_| room.grown) {
        Some(old) => old.last_lba = room.start + room.length - 1,
        None => {
            let new = gpt::partition::Partition {
                part_type_guid: partition_types::LINUX_FS,
                part_guid: uuid::Uuid::new_v4(),
                first_lba: room.start,
                last_lba: room.start + room.length - 1,
                flags: 0,
                name: NAME.to_owned(),
            };
            partitions.insert(room.number, new);
        }
    }
    disk.update_partitions(partitions)?;
    disk.write_inplace()
}

/// What would be done on a disk that begins like this, for `fuzz/`.
#[cfg(fuzzing)]
pub fn parse(disk: Vec<u8>) {
    let size = disk.len() as u64;
    let Ok(disk) = GptConfig::new().open_from_device(std::io::Cursor::new(disk)) else { return };
    for size in [size, 1 << 40] {
        if let Ok(Some(room)) = plan(&disk, size, Path::new("fuzz")) {
            assert!((room.start + room.length) * SECTOR <= size, "{room:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A disk of 256 MiB with two slots.
    fn disk(size: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(size).unwrap();
        let mut table = GptConfig::new().writable(true).create_from_device(file, None).unwrap();
        for slot in ["slot-a", "slot-b"] {
            table.add_partition(slot, 64 * MIB, partition_types::LINUX_FS, 0, Some(ALIGN)).unwrap();
        }
        table.write_inplace().unwrap();
        (dir, path)
    }

    fn open(path: &Path) -> GptDisk<File> {
        let file = File::options().read(true).write(true).open(path).unwrap();
        GptConfig::new().writable(true).open_from_device(file).unwrap()
    }

    #[test]
    fn it_is_made_and_grows_with_its_disk() {
        let (_dir, path) = disk(256 * MIB);
        let mut table = open(&path);
        let room = plan(&table, 256 * MIB, &path).unwrap().unwrap();
        assert_eq!((room.number, room.start % ALIGN, room.grown), (3, 0, false));
        write(&mut table, room).unwrap();
        assert_eq!(plan(&open(&path), 256 * MIB, &path).unwrap(), None);

        File::options().write(true).open(&path).unwrap().set_len(512 * MIB).unwrap();
        let mut table = open(&path);
        let grown = plan(&table, 512 * MIB, &path).unwrap().unwrap();
        assert_eq!((grown.start, grown.grown), (room.start, true));
        assert_eq!(grown.length - room.length, 256 * MIB / SECTOR);
        write(&mut table, grown).unwrap();
        let table = open(&path);
        assert_eq!(table.partitions()[&3].last_lba, grown.start + grown.length - 1);
        assert!(table.partitions().values().any(|p| p.name == "slot-b"));
        assert!(table.backup_header().is_ok(), "the backup table is at the new end");
    }

    #[test]
    fn a_table_that_cannot_be_is_refused() {
        for (first, last) in [(34, u64::MAX), (u64::MAX, u64::MAX), (4096, 4095), (34, 256 * MIB / SECTOR)] {
            let (_dir, path) = disk(256 * MIB);
            let mut table = open(&path);
            let mut partitions = table.take_partitions();
            let slot = partitions.get_mut(&2).unwrap();
            (slot.first_lba, slot.last_lba) = (first, last);
            table.update_partitions(partitions).unwrap();
            let refused = plan(&table, 256 * MIB, &path);
            assert!(matches!(refused, Err(Error::Foreign { .. })), "{first} {last}: {refused:?}");
        }
    }

    #[test]
    fn what_lay_in_free_space_does_not_pass_for_a_filesystem() {
        let (_dir, path) = disk(256 * MIB);
        let room = plan(&open(&path), 256 * MIB, &path).unwrap().unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let (first, last) = (room.start * SECTOR, (room.start + room.length) * SECTOR - 512);
        let slot = first - 512;
        for at in [slot, first, last] {
            file.write_all_at(&[0xee; 512], at).unwrap();
        }
        clear(&file, room).unwrap();
        let read = |at| {
            let mut bytes = [1; 512];
            file.read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        assert_eq!([read(slot), read(first), read(last)], [[0xee; 512], [0; 512], [0; 512]]);
    }

    #[test]
    fn a_disk_without_room_is_named() {
        let (_dir, path) = disk(160 * MIB);
        let error = plan(&open(&path), 160 * MIB, &path).unwrap_err().to_string();
        assert!(error.contains("no room for the state") && error.contains("64 needed"), "{error}");
    }
}
