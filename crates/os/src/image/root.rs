//! The root filesystem: `rast`, the packet filter's tool and its libraries, modules, the web's authorities.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use super::{
    Error, failed, initrd,
    kernel::Files,
    package::{self, Store},
    tool::Tool,
    tree::{Node, Tree},
};
use crate::modules;

/// What devices and mounts may ask PID 1 for, beyond what they may ask the initrd for.
#[rustfmt::skip]
const MODULES: &[&str] = &[
    // Filesystems: /etc, config drives, NoCloud, the boot partition; the state's checksums.
    "overlay", "isofs", "vfat", "nls_ascii", "nls_cp437", "nls_utf8", "crc32c-intel",
    // Drives that the initrd can do without, the network's cards, the power button, the hypervisor's wishes.
    "ata_piix", "sr_mod", "virtio_net", "button", "evdev", "virtio_balloon", "virtio_console",
];

/// The modules of a root.
pub fn modules<'a>() -> impl Iterator<Item = &'a str> {
    // The initrd's once more: a disk of a kind that is not the root's may come later.
    [&initrd::DEVICES, MODULES, modules::NODE].into_iter().flatten().copied()
}

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// The program that `network` runs, and the libraries it is linked with.
const NFT: (&str, &str) = ("nftables", "nft");
const NFT_NEEDS: [(&str, &str); 12] = [
    ("libc6", LOADER),
    ("libc6", "libc.so.6"),
    ("libnftables1", "libnftables.so.1"),
    ("libnftnl11", "libnftnl.so.11"),
    ("libmnl0", "libmnl.so.0"),
    ("libxtables12", "libxtables.so.12"),
    ("libjansson4", "libjansson.so.4"),
    ("libgmp10", "libgmp.so.10"),
    ("libedit2", "libedit.so.2"),
    ("libtinfo6", "libtinfo.so.6"),
    ("libbsd0", "libbsd.so.0"),
    ("libmd0", "libmd.so.0"),
];

const AUTHORITIES: &str = "ca-certificates";

/// The packages that the root takes files from.
pub fn packages() -> impl Iterator<Item = &'static str> {
    NFT_NEEDS.iter().map(|(package, _)| *package).chain([NFT.0, AUTHORITIES])
}

const MOUNT_POINTS: [&str; 9] = ["dev", "proc", "sys", "run", "tmp", "var", "etc", "mnt", "root"];
const LINKS: [(&str, &str); 5] =
    [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("var/run", "/run")];

/// What stands in /etc before PID 1 puts memory over it.
const ETC: [(&str, &str); 5] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/protocols", "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n"),
];

const MKFS: Tool = Tool("mkfs.erofs", "erofs-utils");
/// Filesystems of equal content are equal: a fixed identity, no times.
const UUID: &str = "7261734f-5300-4000-8000-000000000000";

/// Everything the root holds.
pub fn tree(packages: &Store, program: Vec<u8>, modules: Files) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    tree.add_program("usr/bin/rast", program);
    tree.add_program("usr/sbin/nft", file_of(packages, NFT)?);
    for library in NFT_NEEDS {
        let (bytes, executable) = (file_of(packages, library)?, library.1 == LOADER);
        tree.add(Path::new(LIBRARIES).join(library.1), Node::File { bytes, executable });
    }
    tree.add(format!("usr/lib64/{LOADER}"), Node::Link(format!("../lib/x86_64-linux-gnu/{LOADER}").into()));
    for (name, bytes) in modules {
        tree.add_data(Path::new(modules::MACHINE.trim_start_matches('/')).join(name), bytes);
    }
    for directory in MOUNT_POINTS {
        tree.add(directory, Node::Directory);
    }
    for (name, target) in LINKS {
        tree.add(name, Node::Link(target.into()));
    }
    for (name, text) in ETC {
        tree.add_data(name, text);
    }
    tree.add_data("usr/lib/os-release", os_release());
    tree.add("etc/os-release", Node::Link("../usr/lib/os-release".into()));
    tree.add_data("etc/ssl/certs/ca-certificates.crt", authorities(packages)?);
    Ok(tree)
}

fn os_release() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("NAME=rastOS\nID=rastos\nVERSION_ID={version}\nPRETTY_NAME=\"rastOS {version}\"\n")
}

/// One file of a package, wherever it lies there.
pub fn file_of(packages: &Store, (package, name): (&str, &str)) -> Result<Vec<u8>, Error> {
    let package = packages.file(package)?;
    // The link's target may carry the version instead: libmd.so.0 -> libmd.so.0.0.5.
    let mut contents = package::contents(package, |path| {
        path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name))
    })?;
    let path = contents.iter().map(|(path, _)| path.to_owned()).find(|path| path.ends_with(name));
    let bytes = path.and_then(|path| contents.take(path));
    bytes.ok_or_else(|| Error::Lacks(package::name(package), name.to_owned()))
}

/// The certificates that browsers trust, in one file.
fn authorities(packages: &Store) -> Result<Vec<u8>, Error> {
    let package = packages.file(AUTHORITIES)?;
    let contents = package::contents(package, |path| path.extension().is_some_and(|e| e == "crt"))?;
    let mut bundle = Vec::new();
    for (_, node) in contents.iter() {
        if let Node::File { bytes, .. } = node {
            bundle.extend_from_slice(bytes);
        }
    }
    match bundle.is_empty() {
        true => Err(Error::Lacks(package::name(package), "*.crt".into())),
        false => Ok(bundle),
    }
}

/// Makes the filesystem in a file.
pub fn filesystem(tree: &Tree, file: &Path) -> Result<(), Error> {
    let staging = tempfile::tempdir().map_err(failed("create a directory in", &std::env::temp_dir()))?;
    for (path, node) in tree.iter() {
        let at = staging.path().join(path);
        lay(&at, node).map_err(failed("write", &at))?;
    }
    fs::set_permissions(staging.path(), Permissions::from_mode(0o755)).map_err(failed("open", staging.path()))?;
    MKFS.run(|c| c.args(["-zlz4hc,12", "-T0", "--all-root", "-U", UUID]).arg(file).arg(staging.path())).map(drop)
}

/// Permissions as they are, whatever the umask says.
fn lay(at: &Path, node: &Node) -> io::Result<()> {
    let mode = match node {
        Node::Directory => {
            fs::create_dir(at)?;
            0o755
        }
        Node::File { bytes, executable } => {
            fs::write(at, bytes)?;
            if *executable { 0o755 } else { 0o644 }
        }
        Node::Link(target) => return symlink(target, at),
    };
    fs::set_permissions(at, Permissions::from_mode(mode))
}
