//! The device mapper's three calls that make a device.

use std::{fs::File, io};

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use crate::verity::{BLOCK, Root};

/// `struct dm_ioctl`, and room for one target behind it.
#[repr(C)]
struct Request {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
    target: Target,
}

/// `struct dm_target_spec`, and its parameters.
#[repr(C)]
struct Target {
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    kind: [u8; 16],
    parameters: [u8; 1024],
}

const HEADER: usize = std::mem::offset_of!(Request, target);
const READ_ONLY: u32 = 1;
const NAME: &str = "root";

const fn code(number: u8) -> Opcode {
    opcode::from_components(rustix::ioctl::Direction::ReadWrite, 0xfd, number, HEADER)
}
const CREATE: Opcode = code(3);
const RESUME: Opcode = code(6);
const LOAD: Opcode = code(9);

/// Makes the device that gives a root's data, checked block by block as it is read.
pub fn open(root: &Root, disk: &str) -> io::Result<String> {
    let control = File::options().read(true).write(true).open("/dev/mapper/control")?;
    call::<CREATE>(&control, &mut request("", 0))?;
    call::<LOAD>(&control, &mut request(&root.table(disk), root.blocks * (BLOCK as u64 / 512)))?;
    let mut resumed = request("", 0);
    call::<RESUME>(&control, &mut resumed)?;
    // The kernel packs a minor number below 256 into the lowest byte; this is the first device.
    Ok(format!("/dev/dm-{}", resumed.dev & 0xff))
}

/// What all three calls take; only a table's load looks at the target.
fn request(parameters: &str, sectors: u64) -> Request {
    Request {
        version: [4, 0, 0],
        data_size: size_of::<Request>() as u32,
        data_start: HEADER as u32,
        target_count: 1,
        open_count: 0,
        flags: READ_ONLY,
        event_nr: 0,
        padding: 0,
        dev: 0,
        name: text(NAME),
        uuid: [0; 129],
        data: [0; 7],
        target: Target {
            sector_start: 0,
            length: sectors,
            status: 0,
            next: 0,
            kind: text("verity"),
            parameters: text(parameters),
        },
    }
}

/// Text in a field of fixed length, ended by a zero byte.
fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    field[..text.len().min(N - 1)].copy_from_slice(&text.as_bytes()[..text.len().min(N - 1)]);
    field
}

#[allow(unsafe_code)]
fn call<const CODE: Opcode>(control: &File, request: &mut Request) -> io::Result<()> {
    // SAFETY: the codes are the device mapper's own, and `data_size` tells the kernel how far it may write.
    unsafe { ioctl(control, Updater::<CODE, Request>::new(request)) }.map_err(io::Error::from)
}
