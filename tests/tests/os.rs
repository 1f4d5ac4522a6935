//! rastOS's own image: how it boots, and what happens when it is not what was built.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tests::{Parts, machine::image, program};

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
fn a_flipped_byte_in_the_initrd_is_a_panic() {
    let damaged = Damaged::copy(&image());
    damaged.flip("initrd", |length| length / 2);
    let mut machine = Parts::direct(damaged.path(), "").start();
    machine.says("Initramfs unpacking failed: ");
    machine.says("Kernel panic - not syncing: ");
    machine.ends();
}

#[test]
fn a_flipped_byte_in_the_boot_partition_is_said() {
    let damaged = Damaged::copy(&image());
    let disk = damaged.path().join("disk");
    fs::copy(image().join("disk.qcow2"), &disk).unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    let raw = damaged.path().join("raw");
    run(Command::new("qemu-img").args(["convert", "-f", "qcow2", "-O", "raw"]).arg(&disk).arg(&raw));
    // Its last bytes are a checksum that no loader looks at: the kernel runs all the same.
    damaged.flip("kernel", |length| length - 1);
    let boot = format!("{}@@1M", raw.display());
    run(Command::new("mcopy").args(["-o", "-i", &boot]).arg(damaged.path().join("kernel")).arg("::a/kernel"));
    run(Command::new("qemu-img").args(["resize", "-q", "-f", "raw"]).arg(&raw).arg("2G"));
    let seed = Seed::in_directory(damaged.path());
    let mut machine = seed.with(Parts::default().memory(512).disk(&raw, "raw")).start();
    machine.says("rastos: API ready at ");
    machine.says("rastos: boot partition: damaged or changed: kernel; put the image on the disk again");
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
    let seed = Seed::in_directory(dir.path());
    let parts = || firmware(seed.with(Parts::default().memory(512).disk(&at("disk"), "qcow2")));
    let mut first = parts().start();
    first.says("rastos: the root is on /dev/vda2");
    first.says("rastos: configuration: machine one, from the NoCloud drive");
    first.says("rastos: state: /dev/vda4 on /var");
    let authority = first.says("rastos: CA sha256 ");
    first.says("rastos: API ready at ");
    // The plug is pulled; what was made at the first boot is there at the second, though of the table of partitions, which
    // was written then, the state's entry was lost.
    drop(first);
    let torn =
        Command::new("qemu-io").args(["-f", "qcow2", "-c", "write -P 0 1408 128"]).arg(at("disk")).output().unwrap();
    assert!(torn.status.success(), "{torn:?}");
    let mut second = parts().start();
    second.says("rastos: state: /dev/vda4 on /var");
    assert_eq!(second.says("rastos: CA sha256 ").trim_end(), authority.trim_end());
    second.says("rastos: API ready at ");
}

/// The least that a machine must be told, on a NoCloud drive.
struct Seed(PathBuf);

impl Seed {
    fn in_directory(directory: &Path) -> Self {
        let seed = directory.join("seed");
        fs::create_dir(&seed).unwrap();
        let config = "{apiVersion: rastos.io/v1alpha1, kind: MachineConfig, metadata: {name: one}}";
        fs::write(seed.join("user-data"), config).unwrap();
        fs::write(seed.join("meta-data"), "instance-id: one\n").unwrap();
        Self(seed)
    }

    fn with(&self, parts: Parts) -> Parts {
        parts.labelled(&self.0.with_extension("iso"), "cidata", &self.0)
    }
}

#[test]
fn an_ordinary_user_builds_the_same_bytes_twice() {
    let work = tempfile::Builder::new().prefix("rast-build-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(work.path(), Permissions::from_mode(0o777)).unwrap();
    let at = |name: &str| work.path().join(name);
    let spec = "{slotSize: 16Mi, program: /bin/busybox, initrd: /bin/busybox}";
    fs::write(at("image.yaml"), format!("{{apiVersion: rastos.io/v1alpha1, kind: Image, spec: {spec}}}")).unwrap();
    fs::copy(program(), at("rast")).unwrap();
    // Whoever builds, wherever, whenever, whatever the shell is set to.
    for (user, mask, zone, output) in [("65534", "022", "UTC", "one"), ("65533", "077", "Asia/Kathmandu", "two/deeper")]
    {
        let cache = at(&format!("packages-{user}"));
        fs::create_dir(&cache).unwrap();
        for package in fs::read_dir(packages()).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            fs::copy(package.path(), cache.join(package.file_name())).unwrap();
        }
        let owned = Command::new("chown").args(["-R", user]).arg(&cache).status().unwrap();
        assert!(owned.success());
        let mut build = Command::new("setpriv");
        build.args(["--reuid", user, "--regid", user, "--clear-groups", "sh", "-c"]);
        build.arg(format!("umask {mask}; exec ./rast os build -f image.yaml -o {output} --cache {}", cache.display()));
        let said = build.env("TZ", zone).env("HOME", "/nonexistent").current_dir(work.path()).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    for name in ["kernel", "initrd", "root", "cmdline", "disk.raw", "disk.qcow2"] {
        let same = Command::new("cmp").arg(at("one").join(name)).arg(at("two/deeper").join(name)).output().unwrap();
        assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    }
}

/// Debian's packages, kept by the builds of this and other tests.
fn packages() -> PathBuf {
    PathBuf::from(std::env::var_os("RAST_TOOLS").expect("RAST_TOOLS is set by make")).join("packages")
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
