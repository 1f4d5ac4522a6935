//! System calls that no safe crate wraps.

#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// Lets a mounted ext4 filesystem take this many blocks: `EXT4_IOC_RESIZE_FS`.
pub fn grow_ext4(root: &File, blocks: u64) -> io::Result<()> {
    const RESIZE: Opcode = opcode::write::<u64>(b'f', 16);
    // SAFETY: the call reads the u64 that the code's size promises.
    Ok(unsafe { ioctl(root, Setter::<RESIZE, u64>::new(blocks)) }?)
}

/// Gives a mounted ext4 filesystem an identity of its own: `EXT4_IOC_SETFSUUID`.
pub fn set_ext4_uuid(root: &File, uuid: [u8; 16]) -> io::Result<()> {
    #[repr(C)]
    struct FsUuid {
        length: u32,
        flags: u32,
        uuid: [u8; 16],
    }
    // The code carries the size of the head alone.
    const SET: Opcode = opcode::write::<[u32; 2]>(b'f', 44);
    let new = FsUuid { length: 16, flags: 0, uuid };
    // SAFETY: the call reads `length` bytes behind the head, which are there.
    Ok(unsafe { ioctl(root, Setter::<SET, FsUuid>::new(new)) }?)
}

/// Tells the kernel of one partition that is new, or of its new length: `BLKPG`. Those in use stay as they are.
pub fn announce_partition(disk: &File, number: u32, start: u64, length: u64) -> io::Result<()> {
    const BLKPG: libc::c_ulong = 0x1269;
    const ADD: i32 = 1;
    const RESIZE: i32 = 3;
    #[repr(C)]
    struct Partition {
        start: i64,
        length: i64,
        number: i32,
        names: [u8; 128],
    }
    #[repr(C)]
    struct Argument {
        operation: i32,
        flags: i32,
        length: i32,
        data: *mut Partition,
    }
    let wide = |n: u64| i64::try_from(n).map_err(io::Error::other);
    let number = i32::try_from(number).map_err(io::Error::other)?;
    let mut partition = Partition { start: wide(start)?, length: wide(length)?, number, names: [0; 128] };
    let mut call = |operation| {
        let argument =
            Argument { operation, flags: 0, length: size_of::<Partition>() as i32, data: &raw mut partition };
        // SAFETY: the argument and the partition it points at outlive the call, which writes to neither.
        match unsafe { libc::ioctl(disk.as_fd().as_raw_fd(), BLKPG, &argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    match call(ADD) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => call(RESIZE),
        other => other,
    }
}
