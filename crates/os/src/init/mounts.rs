//! The filesystems that every machine has, before its state.

use std::{ffi::CString, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use rustix::{
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
};

use crate::modules::{self, Modules};

/// Kind, place and options. No program is run from any of them.
const TABLE: [(&str, &str, &str); 9] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=755"),
    ("devpts", "/dev/pts", "ptmxmode=0666,mode=0620,gid=5"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("mqueue", "/dev/mqueue", ""),
    ("tmpfs", "/run", "mode=755"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("cgroup2", CGROUPS, "nsdelegate"),
];

const CGROUPS: &str = "/sys/fs/cgroup";
/// What pods are limited by; the runtime hands them on below.
const CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

/// Mounts what is not mounted yet. Goes on after a failure: a machine that lacks one of these can still say so.
pub fn early() -> Vec<String> {
    let mut complaints = Vec::new();
    for (kind, at, options) in TABLE {
        if let Err(e) = one(kind, at, options) {
            complaints.push(format!("mount {at}: {e}"));
        }
    }
    // What volumes mount later is seen by containers that ask for it.
    if let Err(e) = mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC) {
        complaints.push(format!("share mounts: {e}"));
    }
    complaints
}

/// Lets cgroups below the first one limit what pods are limited by. To be called before the first container; it takes a
/// while, and the API needs none of it. Where one fails, the others are handed on all the same; the first failure is told.
pub fn hand_on_controllers() -> io::Result<()> {
    let file = Path::new(CGROUPS).join("cgroup.subtree_control");
    let mut first = Ok(());
    for controller in CONTROLLERS {
        let failed = |e| io::Error::other(format!("hand on the cgroup controller {controller}: {e}"));
        first = first.and(fs::write(&file, format!("+{controller}")).map_err(failed));
    }
    first
}

fn one(kind: &str, at: &str, options: &str) -> io::Result<()> {
    let path = Path::new(at);
    if let (false, Some(parent)) = (path.exists(), path.parent())
        && is_mount(parent)
    {
        fs::create_dir(path)?;
    }
    if is_mount(path) {
        return Ok(());
    }
    // Devices lie in /dev alone.
    let flags = if kind == "devtmpfs" || kind == "devpts" { MountFlags::empty() } else { MountFlags::NODEV };
    mount_with(kind, kind, path, flags | MountFlags::NOSUID | MountFlags::NOEXEC, options)
}

/// Mounts with options that are text; loads the filesystem's driver first, if the kernel lacks it.
pub fn mount_with(source: &str, kind: &str, at: &Path, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = CString::new(options)?;
    let mount = || mount(source, at, kind, flags, Some(options.as_c_str()));
    match mount() {
        Err(Errno::NODEV) => driver(kind)?,
        done => return Ok(done?),
    }
    Ok(mount()?)
}

fn driver(kind: &str) -> io::Result<()> {
    // What a FAT is mounted with by default; the kernel finds that out when it is too late.
    let charsets: &[&str] = if kind == "vfat" { &["nls_cp437", "nls_ascii", "nls_utf8"] } else { &[] };
    let alias = format!("fs-{kind}");
    let asked = [&[&*alias], charsets].concat();
    Modules::open(Path::new(modules::MACHINE)).and_then(|modules| modules.want(&asked)).map_err(io::Error::other)
}

/// Puts memory over `/etc`; what the image has there is still seen.
pub fn etc() -> io::Result<()> {
    if fs::metadata("/etc").is_ok_and(|m| fs::metadata("/").is_ok_and(|root| m.dev() != root.dev())) {
        return Ok(());
    }
    for dir in ["/run/etc", "/run/etc/upper", "/run/etc/work"] {
        match fs::create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    let options = "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work";
    mount_with("etc", "overlay", Path::new("/etc"), MountFlags::NOSUID | MountFlags::NODEV, options)
}

/// Whether a filesystem begins here.
pub fn is_mount(path: &Path) -> bool {
    let device = |p: &Path| fs::metadata(p).ok().map(|m| m.dev());
    match (device(path), path.parent().map(device)) {
        (Some(own), Some(Some(parent))) => own != parent,
        _ => false,
    }
}

/// Takes a filesystem away, or makes it read-only where something still holds it.
pub fn settle(at: &Path) -> io::Result<()> {
    if !is_mount(at) || unmount(at, UnmountFlags::empty()).is_ok() {
        return Ok(());
    }
    Ok(rustix::mount::mount_remount(at, MountFlags::RDONLY, c"")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_filesystems_begin() {
        assert!(is_mount(Path::new("/proc")));
        assert!(!is_mount(Path::new("/proc/1")));
        assert!(!is_mount(Path::new("/nowhere/at/all")));
    }
}
