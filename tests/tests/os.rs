//! rastOS's own image: how it boots, and what happens when it is not what was built.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use tests::{Parts, machine::image};

const NO_ROOT: &str = "rastos: no disk or partition holds the root";

#[test]
fn the_kernel_hands_over_to_rast_on_a_verified_root() {
    let mut machine = Parts::direct(&image(), "").start();
    machine.says("rastos: the root is on /dev/vda");
    machine.says("rast");
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
fn bios_boots_the_uploaded_disk() {
    let copy = Damaged::copy(&image());
    let mut machine = Parts::default().disk(&copy.path().join("disk.qcow2"), "qcow2").start();
    machine.says("rastos: the root is on /dev/vda2");
    machine.says("rast");
}

#[test]
fn a_slot_that_is_damaged_gives_way_to_the_other() {
    let damaged = Damaged::copy(&image());
    let raw = damaged.path().join("disk.raw");
    let converted = Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(image().join("disk.qcow2")).arg(&raw);
    assert!(converted.status().unwrap().success());
    damaged.flip("disk.raw", |_| SLOT_A + 1030);
    let mut machine = Parts::default().disk(&raw, "raw").restarts().start();
    machine.says("rastos: the root is on /dev/vda2");
    machine.says("Kernel panic - not syncing: dm-verity device corrupted");
    machine.says("rastos: the root is on /dev/vda3");
    machine.says("rast");
}

/// Where slot a begins: behind the partition table and the boot partition.
const SLOT_A: usize = 65 << 20;

#[test]
fn an_ordinary_user_builds_the_same_bytes_twice() {
    let work = tempfile::Builder::new().prefix("rast-build-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let at = |name: &str| work.path().join(name);
    let text = "apiVersion: rastos.io/v1alpha1\nkind: Image\nspec: {slotSize: 16Mi, program: /bin/busybox, \
                initrd: /bin/busybox}\n";
    fs::write(at("image.yaml"), text).unwrap();
    fs::copy(tests::program(), at("rast")).unwrap();
    fs::set_permissions(at("rast"), fs::Permissions::from_mode(0o755)).unwrap();
    for output in ["one", "two"] {
        let mut build = Command::new(at("rast"));
        build
            .args(["os", "build", "-f"])
            .arg(at("image.yaml"))
            .arg("-o")
            .arg(at(output))
            .arg("--cache")
            .arg(at("cache"));
        let said = build.current_dir(work.path()).uid(65534).gid(65534).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    for name in ["kernel", "initrd", "root", "cmdline", "disk.raw", "disk.qcow2"] {
        let same = Command::new("cmp").arg(at("one").join(name)).arg(at("two").join(name)).status().unwrap();
        assert!(same.success(), "{name} differs");
    }
}

/// A copy of an image, to be damaged.
struct Damaged(tempfile::TempDir);

impl Damaged {
    fn copy(image: &Path) -> Self {
        let copy = tempfile::Builder::new().prefix("rast-image-").tempdir_in("/tmp").unwrap();
        for name in ["kernel", "initrd", "root", "cmdline", "disk.qcow2"] {
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
