//! The initrd: one program and the modules it loads.

use std::io::Write as _;

use super::{
    kernel::Files,
    tree::{Node, Tree},
};

/// What it may take to find the root; each is loaded where such a device is.
pub const DEVICES: [&str; 6] = ["virtio-rng", "virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "nvme"];
/// What it takes to open the root.
const ROOT: [&str; 3] = ["blake2b_generic", "dm-verity", "erofs"];

/// The modules of an initrd.
pub fn modules() -> impl Iterator<Item = &'static str> {
    DEVICES.into_iter().chain(ROOT)
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DATA: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// The archive that the kernel unpacks, compressed.
pub fn archive(program: Vec<u8>, modules: Files) -> Vec<u8> {
    let mut tree = Tree::default();
    tree.add_program("init", program);
    for directory in ["dev", "proc", "sys", "root"] {
        tree.add(directory, Node::Directory);
    }
    for (name, bytes) in modules {
        tree.add_data(format!("modules/{name}"), bytes);
    }
    compress(&cpio(&tree))
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    // Writing to memory cannot fail, and the level exists. With its checksum: the kernel unpacks nothing that was damaged.
    let compressed = zstd::Encoder::new(Vec::new(), 19).and_then(|mut archive| {
        archive.include_checksum(true)?;
        archive.write_all(bytes)?;
        archive.finish()
    });
    compressed.unwrap_or_default()
}

/// The `newc` form, without times or owners.
fn cpio(tree: &Tree) -> Vec<u8> {
    let mut archive = Vec::new();
    for (number, (path, node)) in (1..).zip(tree.iter()) {
        let name = path.to_string_lossy();
        match node {
            Node::Directory => entry(&mut archive, number, &name, DIRECTORY, &[]),
            Node::File { bytes, executable: true } => entry(&mut archive, number, &name, PROGRAM, bytes),
            Node::File { bytes, executable: false } => entry(&mut archive, number, &name, DATA, bytes),
            Node::Link(to) => entry(&mut archive, number, &name, LINK, to.as_os_str().as_encoded_bytes()),
        }
    }
    entry(&mut archive, 0, "TRAILER!!!", 0, &[]);
    archive
}

fn entry(archive: &mut Vec<u8>, inode: u32, name: &str, mode: u32, bytes: &[u8]) {
    let (links, name_size) = (1, name.len() + 1);
    // inode, mode, uid, gid, links, time, size, device (major, minor), rdev (major, minor), name's size, checksum
    let fields = [inode, mode, 0, 0, links, 0, bytes.len() as u32, 0, 0, 0, 0, name_size as u32, 0];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(bytes);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_aligned() {
        let mut tree = Tree::default();
        tree.add_data("a/bc", *b"12345");
        let archive = cpio(&tree);
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive);
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        assert!(text.contains("a/bc\0\0"), "{text}");
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"), "{text}");
    }
}
