//! rastOS's own image: how it boots, and what happens when it is not what was built.

use std::{fs, path::Path, process::Command};

use tests::{Parts, machine::image};

const NO_ROOT: &str = "rastos: no disk or partition holds the root";

#[test]
fn the_kernel_hands_over_to_rast_on_a_verified_root() {
    let mut machine = Parts::direct(&image(), "").start();
    machine.says("rastos: the root is on /dev/vda");
    machine.says("rastos: rastOS ");
}

#[test]
fn a_flipped_byte_in_the_used_root_is_a_panic() {
    let damaged = Damaged::copy(&image());
    // The filesystem's superblock, which no boot goes without.
    damaged.flip("root", |_| 1030);
    let mut machine = Parts::direct(damaged.path(), "").start();
    machine.says("device-mapper: verity: ");
    machine.says("Kernel panic - not syncing: dm-verity device corrupted");
    machine.ends();
}

#[test]
fn a_root_that_is_not_the_named_one_is_not_opened() {
    let damaged = Damaged::copy(&image());
    let line = fs::read_to_string(damaged.path().join("cmdline")).unwrap();
    let (before, hash) = line.split_once("rastos.root=").unwrap();
    let first = if hash.starts_with('0') { '1' } else { '0' };
    fs::write(damaged.path().join("cmdline"), format!("{before}rastos.root={first}{}", &hash[1..])).unwrap();
    let mut machine = Parts::direct(damaged.path(), "").start();
    machine.says(NO_ROOT);
    machine.says("Kernel panic - not syncing: Attempted to kill init");
    machine.ends();
}

#[test]
fn the_disk_boots_by_bios() {
    boots_from_the_disk(|parts| parts);
}

#[test]
fn the_disk_boots_by_uefi() {
    boots_from_the_disk(Parts::uefi);
}

/// As uploaded and put on a larger disk: the state takes what the image leaves.
fn boots_from_the_disk(firmware: impl Fn(Parts) -> Parts) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::copy(image().join("disk.qcow2"), at("disk")).unwrap();
    let grown = Command::new("qemu-img").args(["resize", "-q"]).arg(at("disk")).arg("2G").status().unwrap();
    assert!(grown.success());
    fs::create_dir(at("seed")).unwrap();
    let config = "{apiVersion: rastos.io/v1alpha1, kind: MachineConfig, metadata: {name: one}}";
    fs::write(at("seed/user-data"), config).unwrap();
    fs::write(at("seed/meta-data"), "instance-id: one\n").unwrap();
    let parts = || {
        let parts = Parts::default().memory(512).disk(&at("disk"), "qcow2");
        firmware(parts.labelled(&at("seed.iso"), "cidata", &at("seed")))
    };
    let mut first = parts().start();
    first.says("rastos: the root is on /dev/vda2");
    first.says("rastos: configuration: machine one, from the NoCloud drive");
    first.says("rastos: state: /dev/vda4 on /var");
    let authority = first.says("rastos: CA sha256 ");
    first.says("rastos: API ready at ");
    // The plug is pulled; what was made at the first boot is there at the second.
    drop(first);
    let mut second = parts().start();
    assert_eq!(second.says("rastos: CA sha256 ").trim_end(), authority.trim_end());
    second.says("rastos: API ready at ");
}

/// A copy of an image, to be damaged.
struct Damaged(tempfile::TempDir);

impl Damaged {
    fn copy(image: &Path) -> Self {
        let copy = tempfile::Builder::new().prefix("rast-image-").tempdir_in("/tmp").unwrap();
        for name in ["kernel", "initrd", "root", "cmdline"] {
            fs::copy(image.join(name), copy.path().join(name)).unwrap();
        }
        Self(copy)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Turns over one bit of a file.
    fn flip(&self, name: &str, at: impl FnOnce(usize) -> usize) {
        let mut bytes = fs::read(self.path().join(name)).unwrap();
        let at = at(bytes.len());
        bytes[at] ^= 1;
        fs::write(self.path().join(name), bytes).unwrap();
    }
}
