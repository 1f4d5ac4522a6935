//! The disk: a boot partition that BIOS and UEFI start from, two slots for the system, room for the state behind.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::{Error, failed, package::Store, root::file_of, tool::Tool, write};
use crate::slot::Slot;

const MKFS: Tool = Tool("mkfs.vfat", "dosfstools");
const SYSLINUX: Tool = Tool("syslinux", "syslinux");
const MCOPY: Tool = Tool("mcopy", "mtools");
const MMD: Tool = Tool("mmd", "mtools");
const SGDISK: Tool = Tool("sgdisk", "gdisk");
const QEMU_IMG: Tool = Tool("qemu-img", "qemu-utils");

const MBR: (&str, &str) = ("syslinux-common", "gptmbr.bin");
const UEFI: (&str, &str) = ("systemd-boot-efi", "systemd-bootx64.efi");
/// Code in front of the partition table.
const MBR_CODE: usize = 440;

/// The packages that a disk takes files from.
pub const PACKAGES: [&str; 2] = [MBR.0, UEFI.0];

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// What an image fills; the other slot stays empty until there is something newer.
const FIRST: Slot = Slot::A;
/// Where the boot partition begins, in sectors and in bytes.
const BOOT_AT: u64 = 2048;
const BOOT_SIZE: u64 = 64 * MIB;
/// Behind the last slot: the second copy of the partition table.
const END: u64 = MIB;

/// What goes onto a disk.
pub struct Parts<'a> {
    /// The kernel's file.
    pub kernel: &'a Path,
    /// The initrd's file.
    pub initrd: &'a Path,
    /// The root's file, with its hash tree.
    pub root: &'a Path,
    /// The kernel's command line, without the slot.
    pub command_line: &'a str,
    /// Bytes in a slot.
    pub slot: u64,
}

/// Writes a disk.
pub fn raw(parts: &Parts, packages: &Store, file: &Path) -> Result<(), Error> {
    let root = fs::read(parts.root).map_err(failed("read", parts.root))?;
    if root.len() as u64 > parts.slot {
        return Err(Error::Large { size: root.len() as u64, slot: parts.slot });
    }
    let slot_at = |slot: Slot| BOOT_AT * SECTOR + BOOT_SIZE + slot as u64 * parts.slot;
    let disk = File::create(file).map_err(failed("create", file))?;
    disk.set_len(slot_at(Slot::B) + parts.slot + END).map_err(failed("size", file))?;
    table(parts, file)?;
    let boot = boot(parts, packages)?;
    let code = file_of(packages, MBR)?;
    let put = |bytes: &[u8], at: u64| disk.write_all_at(bytes, at).map_err(failed("write", file));
    put(&code[..code.len().min(MBR_CODE)], 0)?;
    put(&boot, BOOT_AT * SECTOR)?;
    put(&root, slot_at(FIRST))
}

/// The disk in qemu's form, compressed, for upload.
pub fn qcow2(raw: &Path, file: &Path) -> Result<(), Error> {
    QEMU_IMG.run(|c| c.args(["convert", "-c", "-f", "raw", "-O", "qcow2"]).args([raw, file])).map(drop)
}

/// The partition table. All identities are fixed: equal disks are equal, byte for byte.
fn table(parts: &Parts, file: &Path) -> Result<(), Error> {
    let guid = |n: u8| format!("7261734f-5300-4000-8000-0000000000{n:02x}");
    let slot = parts.slot / 1024;
    SGDISK
        .run(|c| {
            c.args(["--clear", &format!("--disk-guid={}", guid(0x10))])
                .arg(format!("--new=1:{BOOT_AT}:+{}K", BOOT_SIZE / 1024))
                .args(["--typecode=1:ef00", "--change-name=1:boot", "--attributes=1:set:2"])
                .args([format!("--new=2:0:+{slot}K"), format!("--new=3:0:+{slot}K")])
                .args(["--typecode=2:8300", "--typecode=3:8300", "--change-name=2:slot-a", "--change-name=3:slot-b"])
                .args((1..=3).map(|n| format!("--partition-guid={n}:{}", guid(0x10 + n))))
                .arg(file)
        })
        .map(drop)
}

/// The boot partition.
fn boot(parts: &Parts, packages: &Store) -> Result<Vec<u8>, Error> {
    let work = tempfile::tempdir().map_err(failed("create a directory in", &std::env::temp_dir()))?;
    let at = |name: &str| work.path().join(name);
    let image = at("boot");
    File::create(&image).and_then(|file| file.set_len(BOOT_SIZE)).map_err(failed("create", &image))?;
    let hidden = BOOT_AT.to_string();
    let form = ["-F", "16", "-n", "RASTOS", "-i", "7261734F", "-h", &hidden, "--invariant"];
    MKFS.run(|c| c.args(form).arg(&image))?;
    SYSLINUX.run(|c| c.arg("--install").arg(&image).env("SOURCE_DATE_EPOCH", "0"))?;

    write(&at("syslinux.cfg"), syslinux(parts.command_line).as_bytes())?;
    write(&at("loader.conf"), b"timeout 0\neditor no\n")?;
    write(&at("bootx64.efi"), &file_of(packages, UEFI)?)?;
    MMD.run(|c| {
        dated(c).arg("-i").arg(&image).args(["::a", "::b", "::EFI", "::EFI/BOOT", "::loader", "::loader/entries"])
    })?;
    let copy = |from: &Path, to: &str| {
        MCOPY.run(|c| dated(c).arg("-i").arg(&image).arg(from).arg(format!("::{to}"))).map(drop)
    };
    copy(&at("syslinux.cfg"), "syslinux.cfg")?;
    copy(&at("loader.conf"), "loader/loader.conf")?;
    copy(&at("bootx64.efi"), "EFI/BOOT/BOOTX64.EFI")?;
    copy(parts.kernel, &format!("{FIRST}/kernel"))?;
    copy(parts.initrd, &format!("{FIRST}/initrd"))?;
    write(&at("entry"), loader_entry(parts.command_line).as_bytes())?;
    copy(&at("entry"), &format!("loader/entries/{FIRST}.conf"))?;
    fs::read(&image).map_err(failed("read", &image))
}

fn dated(command: &mut std::process::Command) -> &mut std::process::Command {
    command.env("SOURCE_DATE_EPOCH", "315532800").env("MTOOLS_SKIP_CHECK", "1")
}

/// For BIOS.
fn syslinux(command_line: &str) -> String {
    let words = FIRST.command_line(command_line);
    format!(
        "DEFAULT {FIRST}\nPROMPT 0\nLABEL {FIRST}\n  LINUX /{FIRST}/kernel\n  INITRD /{FIRST}/initrd\n  APPEND {words}\n"
    )
}

/// For UEFI.
fn loader_entry(command_line: &str) -> String {
    let words = FIRST.command_line(command_line);
    format!("title rastOS\nlinux /{FIRST}/kernel\ninitrd /{FIRST}/initrd\noptions {words}\n")
}
