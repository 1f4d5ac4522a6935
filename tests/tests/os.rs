//! rastOS's own image: how it boots, and what happens when it is not what was built.

use std::{fs, path::Path};

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
