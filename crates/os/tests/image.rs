//! Images of a small program, built for real: their bytes, their hash trees, what they hold.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use os::{
    image::{Image, Places, build},
    modules, verity,
};
use serde_json::json;
use tempfile::TempDir;

/// A program that is linked statically, standing in for ours.
const PROGRAM: &str = "/bin/busybox";
const MIB: u64 = 1 << 20;
const SLOT_A: u64 = 65 * MIB;
const SLOT_B: u64 = 81 * MIB;

/// Packages stay, as they would in a user's cache.
fn cache() -> PathBuf {
    let tools = std::env::var_os("RAST_TOOLS").map_or_else(std::env::temp_dir, PathBuf::from);
    tools.join("packages")
}

fn built(spec: serde_json::Value) -> TempDir {
    let output = tempfile::Builder::new().prefix("rast-image-").tempdir_in("/tmp").unwrap();
    let document = json!({"apiVersion": "rastos.io/v1alpha1", "kind": "Image", "spec": spec});
    let image = Image::read(&document).unwrap();
    let output_dir = output.path().to_owned();
    let places = Places { program: PROGRAM.into(), initrd: PROGRAM.into(), cache: cache(), output: output_dir };
    build(&image, &places).unwrap();
    output
}

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_disk_holds_what_was_built_and_the_tree_is_veritysetup_s() {
    let image = built(json!({"slotSize": "16Mi", "commandLine": ["quiet"]}));
    let at = |name: &str| image.path().join(name);
    let line = fs::read_to_string(at("cmdline")).unwrap();
    assert!(line.ends_with(" quiet"), "{line}");
    let root = verity::Root::on(&line).unwrap().unwrap();

    let bytes = fs::read(at("root")).unwrap();
    let (data, tree) = bytes.split_at(root.blocks as usize * verity::BLOCK);
    fs::write(at("data"), data).unwrap();
    let said = printed(
        Command::new("veritysetup")
            .args(["format", "--no-superblock", "--salt=-", "--hash=blake2b-512"])
            .args([at("data"), at("tree")]),
    );
    assert_eq!(fs::read(at("tree")).unwrap(), tree);
    let hash = said.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap();
    assert!(line.contains(&format!("{}:{}", hash.trim(), root.blocks)), "{said}");

    let disk = File::open(at("disk.raw")).unwrap();
    let mut held = vec![0; bytes.len()];
    disk.read_exact_at(&mut held, SLOT_A).unwrap();
    assert!(held == bytes, "slot a is not the root that was built");
    disk.read_exact_at(&mut held, SLOT_B).unwrap();
    assert!(held.iter().all(|byte| *byte == 0), "slot b is not empty");
    let table = printed(Command::new("sgdisk").arg("--verify").arg("--print").arg(at("disk.raw")));
    assert!(table.contains("No problems found"), "{table}");
    for name in ["boot", "slot-a", "slot-b"] {
        assert!(table.lines().any(|line| line.ends_with(name)), "{table}");
    }
    printed(Command::new("qemu-img").arg("check").arg(at("disk.qcow2")));
    let compared = printed(Command::new("qemu-img").arg("compare").args([at("disk.raw"), at("disk.qcow2")]));
    assert!(compared.contains("identical"), "{compared}");
}

#[test]
fn the_root_has_few_programs_and_no_shell() {
    let image = built(json!({"slotSize": "16Mi"}));
    let unpacked = image.path().join("unpacked");
    let extract = format!("--extract={}", unpacked.display());
    printed(Command::new("fsck.erofs").arg(extract).arg(image.path().join("root")));
    let programs = programs(&unpacked);
    let expected = ["usr/bin/rast", "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "usr/sbin/nft"];
    assert_eq!(programs.keys().map(String::as_str).collect::<Vec<_>>(), expected);
    assert!(programs.values().all(|bytes| bytes.starts_with(b"\x7fELF")), "an interpreter would run the others");
    // What nft needs is there, and it runs without anything of this host.
    let version = printed(Command::new("chroot").arg(&unpacked).args(["/usr/sbin/nft", "--version"]));
    assert!(version.starts_with("nftables v"), "{version}");
    assert!(fs::read(unpacked.join("etc/ssl/certs/ca-certificates.crt")).unwrap().starts_with(b"-----BEGIN CERT"));
}

#[test]
fn the_index_says_of_modules_what_they_say_of_themselves() {
    let image = built(json!({"slotSize": "16Mi", "modules": ["nfs"]}));
    let unpacked = image.path().join("unpacked");
    printed(Command::new("fsck.erofs").arg(format!("--extract={}", unpacked.display())).arg(image.path().join("root")));
    let modules = unpacked.join(modules::MACHINE.trim_start_matches('/'));
    assert_eq!(fs::read_to_string(modules.join(modules::CHOSEN)).unwrap(), "nfs");
    let index = fs::read_to_string(modules.join(modules::INDEX)).unwrap();
    let mut before = Vec::new();
    for line in index.lines() {
        let module: modules::Module = line.parse().unwrap();
        let told = |field| {
            printed(Command::new("modinfo").args(["-F", field]).arg(modules.join(format!("{}.ko", module.name))))
        };
        assert!(module.needs.iter().all(|needed| before.contains(needed)), "{line}");
        assert_eq!(module.needs.join(","), told("depends").trim().replace('-', "_"), "{line}");
        let aliases: Vec<String> = module.aliases.iter().map(ToString::to_string).collect();
        assert_eq!(aliases, told("alias").lines().collect::<Vec<_>>(), "{line}");
        before.push(module.name);
    }
    for name in ["virtio_net", "virtio_scsi", "isofs", "nft_chain_nat", "nfs"] {
        assert!(before.iter().any(|module| module == name), "{name}");
    }
}

/// Files that may be executed, by path.
fn programs(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let listed = printed(Command::new("find").arg(root).args(["-type", "f", "-perm", "/111", "-printf", "%P\n"]));
    listed.lines().map(|path| (path.to_owned(), fs::read(root.join(path)).unwrap())).collect()
}

#[test]
fn a_program_that_needs_a_loader_is_refused() {
    let output = tempfile::tempdir().unwrap();
    let output_dir = output.path().join("image");
    let places = Places { program: "/bin/ls".into(), initrd: PROGRAM.into(), cache: cache(), output: output_dir };
    let error = build(&Image::default(), &places).unwrap_err().to_string();
    assert_eq!(error, "/bin/ls is not statically linked; `make image` builds one that is");
    assert!(!output.path().join("image").exists());
}

#[test]
fn a_root_that_outgrows_its_slot_is_refused() {
    let output = tempfile::tempdir().unwrap();
    let large = output.path().join("large");
    // Nothing that compression could make small.
    let mut noise = vec![0u8; 20 << 20];
    let mut state = 1u64;
    noise.fill_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    });
    fs::write(&large, noise).unwrap();
    let mut image = Image::default();
    image.spec.slot_size = Some("16Mi".into());
    let places = Places { program: large, initrd: PROGRAM.into(), cache: cache(), output: output.path().join("image") };
    let error = build(&image, &places).unwrap_err().to_string();
    assert!(error.ends_with("and a slot has 16777216; raise spec.slotSize"), "{error}");
}
