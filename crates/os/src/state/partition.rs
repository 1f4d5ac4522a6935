//! The state's partition on the boot disk, of a machine whose configuration names no disk.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use gpt::{DiskDevice, DiskDeviceObject, GptConfig, GptDisk, GptError, partition::Partition, partition_types};

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
    let mut file = File::options().read(true).write(true).open(&path).map_err(Error::io(doing("open")))?;
    let size = ext4::size(&path).map_err(Error::io(doing("read")))?;
    let mut disk = read(&file).map_err(failed("read"))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed =
        |what: &'static str| move |e: gpt::GptError| Error::io(doing_to(what, &name))(std::io::Error::other(e));
    let room = plan(&disk, size, &path)?;
    if let Some(room) = room.filter(|room| !room.grown) {
        clear(&file, room).map_err(Error::io(doing("clear the room for")))?;
    }
    if room.is_some() || !is_whole(&disk) {
        write(&mut disk, room, &mut file, File::sync_all).map_err(failed("write"))?;
    }
    if let Some(room) = room {
        sys::announce_partition(&file, room.number, room.start * SECTOR, room.length * SECTOR)
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

/// The table, or its copy at the end of the disk if a power cut has torn the one in front. The crate itself takes the copy
/// only where the header is torn, not what it heads.
fn read(file: &File) -> Result<GptDisk<DiskDeviceObject<'static>>, GptError> {
    let open = |device: DiskDeviceObject<'static>| GptConfig::new().writable(true).open_from_device(device);
    open(Box::new(file.try_clone()?)).or_else(|torn| open(Box::new(CopyOnly(file.try_clone()?))).map_err(|_| torn))
}

/// A disk without the table in front.
#[derive(Debug)]
struct CopyOnly(File);

impl Read for CopyOnly {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let at = self.0.stream_position()?;
        let read = self.0.read(into)?;
        if at < 2 * SECTOR {
            into[..read].fill(0);
        }
        Ok(read)
    }
}

impl Seek for CopyOnly {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl Write for CopyOnly {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether the table and its copy at the end of the disk are there and tell the same.
fn is_whole<D>(disk: &GptDisk<D>) -> bool {
    matches!((disk.primary_header(), disk.backup_header()), (Ok(table), Ok(copy)) if table.crc32_parts == copy.crc32_parts)
}

/// Writes the table with what is new in it: first its copy at the end of the disk, which may have grown, and when that
/// has been flushed the one in front. Wherever the power fails one of them is whole; the crate's own way writes both at
/// once.
fn write<D, F: DiskDevice>(
    disk: &mut GptDisk<D>,
    room: Option<Room>,
    file: &mut F,
    flush: impl Fn(&F) -> io::Result<()>,
) -> Result<(), GptError>
where
    D: DiskDevice,
{
    let mut partitions = disk.take_partitions();
    if let Some(room) = room {
        let new = || Partition {
            part_type_guid: partition_types::LINUX_FS,
            part_guid: uuid::Uuid::new_v4(),
            first_lba: room.start,
            last_lba: 0,
            flags: 0,
            name: NAME.to_owned(),
        };
        let made = partitions.remove(&room.number).filter(|_| room.grown).unwrap_or_else(new);
        partitions.insert(room.number, Partition { last_lba: room.start + room.length - 1, ..made });
    }
    disk.update_partitions(partitions)?;
    let (mut table, mut copy) = (disk.primary_header()?.clone(), disk.backup_header()?.clone());
    let sector = *disk.logical_block_size();
    for header in [&mut copy, &mut table] {
        for n in 0..header.num_parts {
            let unused = Partition::zero();
            let entry = disk.partitions().get(&(n + 1)).unwrap_or(&unused);
            entry.write_to_device(file, n.into(), header.part_start, sector, header.part_size)?;
        }
        match header.current_lba < header.backup_lba {
            true => header.write_primary(file, sector)?,
            false => header.write_backup(file, sector)?,
        };
        flush(file)?;
    }
    Ok(())
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
    use std::cell::RefCell;

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

    fn open(path: &Path) -> GptDisk<DiskDeviceObject<'static>> {
        read(&File::options().read(true).write(true).open(path).unwrap()).unwrap()
    }

    fn put(table: &mut GptDisk<DiskDeviceObject<'_>>, room: Room, path: &Path) {
        let mut file = File::options().read(true).write(true).open(path).unwrap();
        write(table, Some(room), &mut file, File::sync_all).unwrap();
    }

    #[test]
    fn it_is_made_and_grows_with_its_disk() {
        let (_dir, path) = disk(256 * MIB);
        let mut table = open(&path);
        let room = plan(&table, 256 * MIB, &path).unwrap().unwrap();
        assert_eq!((room.number, room.start % ALIGN, room.grown), (3, 0, false));
        put(&mut table, room, &path);
        assert_eq!(plan(&open(&path), 256 * MIB, &path).unwrap(), None);

        File::options().write(true).open(&path).unwrap().set_len(512 * MIB).unwrap();
        let mut table = open(&path);
        let grown = plan(&table, 512 * MIB, &path).unwrap().unwrap();
        assert_eq!((grown.start, grown.grown), (room.start, true));
        assert_eq!(grown.length - room.length, 256 * MIB / SECTOR);
        put(&mut table, grown, &path);
        let table = open(&path);
        assert_eq!(table.partitions()[&3].last_lba, grown.start + grown.length - 1);
        assert!(table.partitions().values().any(|p| p.name == "slot-b"));
        assert!(table.backup_header().is_ok(), "the backup table is at the new end");
    }

    /// What was written, and where.
    type Writes = Vec<(u64, Vec<u8>)>;

    /// A disk with a note of what is written to it, and of when it is flushed.
    #[derive(Debug)]
    struct Noted {
        file: File,
        notes: RefCell<Vec<Writes>>,
    }

    impl Noted {
        fn flush(&self) -> io::Result<()> {
            self.notes.borrow_mut().push(Vec::new());
            Ok(())
        }
    }

    impl Read for Noted {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.file.read(into)
        }
    }

    impl Seek for Noted {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.file.seek(to)
        }
    }

    impl Write for Noted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let at = self.file.stream_position()?;
            self.notes.borrow_mut().last_mut().unwrap().push((at, bytes.to_vec()));
            self.file.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Of what was not flushed, a disk keeps what it likes. At first boot it is larger than its image.
    #[test]
    fn a_power_cut_leaves_a_table_or_its_copy() {
        let (_dir, path) = disk(256 * MIB);
        File::options().write(true).open(&path).unwrap().set_len(512 * MIB).unwrap();
        let mut table = open(&path);
        let room = plan(&table, 512 * MIB, &path).unwrap().unwrap();
        let old = table.partitions().clone();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let ends = [(0, 34), (512 * MIB / SECTOR - 33, 33)].map(|(at, sectors)| {
            let mut bytes = vec![0; (sectors * SECTOR) as usize];
            file.read_exact_at(&mut bytes, at * SECTOR).unwrap();
            (at * SECTOR, bytes)
        });
        let mut noted = Noted { file: file.try_clone().unwrap(), notes: RefCell::new(vec![Vec::new()]) };
        write(&mut table, Some(room), &mut noted, Noted::flush).unwrap();
        let done = open(&path);
        assert!(is_whole(&done));
        let new = done.partitions().clone();
        let put = |writes: &[(u64, Vec<u8>)]| {
            writes.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        };
        let mut flushed = ends.to_vec();
        for writes in noted.notes.take() {
            for kept in (0..=writes.len()).flat_map(|n| [&writes[..n], &writes[n..]]) {
                put(&flushed);
                put(kept);
                let left = open(&path);
                assert!([&old, &new].contains(&left.partitions()), "{left:?}");
            }
            flushed.extend(writes);
        }
    }

    #[test]
    fn a_copy_that_is_torn_is_made_anew() {
        let (_dir, path) = disk(256 * MIB);
        let room = plan(&open(&path), 256 * MIB, &path).unwrap().unwrap();
        put(&mut open(&path), room, &path);
        let whole = open(&path).partitions().clone();
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        // The headers, and what the first one heads.
        for sector in [1, 2, 256 * MIB / SECTOR - 1] {
            file.write_all_at(&[0; 100], sector * SECTOR).unwrap();
            let mut table = open(&path);
            assert!(!is_whole(&table) && plan(&table, 256 * MIB, &path).unwrap().is_none());
            write(&mut table, None, &mut file, File::sync_all).unwrap();
            let table = open(&path);
            assert!(is_whole(&table) && table.partitions() == &whole);
        }
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
