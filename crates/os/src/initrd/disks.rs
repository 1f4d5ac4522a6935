//! The disks and partitions of this machine, as they come up.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
};

use rustix::event::Timespec;

use super::{Error, system};
use crate::{
    modules::Modules,
    slot::Slot,
    uevents::{News, Uevents},
    verity::{BLOCK, Root},
};

/// How long the machine may be quiet before a disk that has not come up is not waited for any longer.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The disks, and the drivers that they may need.
pub struct Disks<'a> {
    modules: &'a Modules,
    /// Listened to from before the first driver is loaded.
    uevents: Uevents,
}

impl<'a> Disks<'a> {
    /// Begins to listen, and loads what the devices ask for that are there.
    pub fn open(modules: &'a Modules) -> Result<Self, Error> {
        let uevents = Uevents::open().map_err(system("listen for disks"))?;
        modules.want_for_devices()?;
        Ok(Self { modules, uevents })
    }

    /// The device that holds the root, by the top of its hash tree: it cannot be mistaken, whatever else is attached.
    /// Of a slot, only its partition: the other slot may hold the same root, and be the one that is damaged.
    pub fn find(&self, root: &Root, slot: Option<Slot>) -> Result<String, Error> {
        loop {
            let seen = devices(slot).map_err(system("list block devices"))?;
            if let Some(found) = seen.iter().find(|device| holds(device, root)) {
                return Ok(found.clone());
            }
            match self.uevents.wait(Some(&PATIENCE)).map_err(system("wait for disks"))? {
                Some(News::Devices(aliases)) => self.modules.want(&aliases)?,
                Some(News::Lost) => self.modules.want_for_devices()?,
                None => return Err(Error::NoRoot(*root, seen.join(" "))),
            }
        }
    }
}

fn devices(slot: Option<Slot>) -> io::Result<Vec<String>> {
    let mut names = fs::read_dir("/sys/class/block")?
        .map(|entry| Ok(format!("/dev/{}", entry?.file_name().to_string_lossy())))
        .collect::<io::Result<Vec<_>>>()?;
    if let Some(slot) = slot {
        names.retain(|name| partition(name).as_deref() == Some(slot.partition()));
    }
    names.sort();
    Ok(names)
}

/// What a partition is called in its table.
fn partition(device: &str) -> Option<String> {
    let told = fs::read_to_string(device.replace("/dev", "/sys/class/block") + "/uevent").ok()?;
    told.lines().find_map(|line| line.strip_prefix("PARTNAME=")).map(str::to_owned)
}

/// A device that cannot be read, or is too short, holds nothing.
fn holds(device: &str, root: &Root) -> bool {
    let mut block = [0; BLOCK];
    let Some(at) = root.blocks.checked_mul(BLOCK as u64) else { return false };
    File::open(device).and_then(|file| file.read_exact_at(&mut block, at)).is_ok() && root.tops(&block)
}
