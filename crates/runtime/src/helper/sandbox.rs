//! The worker that makes and pins a sandbox's namespaces, and their removal.

use std::fs;

use rustix::mount::{MountFlags, UnmountFlags};

use super::{
    record::{Pins, absent_is_done},
    worker::{Outcome, Report},
};
use crate::{Error, Result, SandboxSpec, spec, sys};

/// Makes the shared memory and the namespaces of `spec` and pins them by mounts in the host's mount namespace.
pub fn make(spec: &SandboxSpec, pins: &Pins) -> Outcome {
    unpin(pins)?; // what a worker that was killed may have left
    let doing = |what: &str| format!("{what} for sandbox {}", spec.id);
    if !spec.host_ipc {
        fs::create_dir(&pins.shm).map_err(Error::io(doing("make a directory for shared memory")))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("shm", &pins.shm, "tmpfs", flags, Some(c"mode=1777,size=65536k"))
            .map_err(Error::io(doing("mount shared memory")))?;
    }
    let own = [
        ("net", libc::CLONE_NEWNET, !spec.host_network),
        ("ipc", libc::CLONE_NEWIPC, !spec.host_ipc),
        ("uts", libc::CLONE_NEWUTS, true),
    ];
    let flags = own.iter().filter(|(.., own)| *own).fold(0, |flags, (_, flag, _)| flags | flag);
    sys::unshare(flags).map_err(Error::io(doing("make namespaces")))?;
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes()).map_err(Error::io(doing("set the host name")))?;
    }
    if !spec.host_network {
        sys::loopback_up().map_err(Error::io(doing("set lo up")))?;
    }
    for (name, value) in &spec.sysctls {
        let path = spec::sysctl_path(spec, name)?;
        fs::write(&path, value)
            .map_err(|e| Error::Invalid { field: format!("sysctls[{name}]"), why: e.to_string() })?;
    }
    for ((name, _, own), pin) in own.iter().zip(&pins.namespaces) {
        if *own {
            fs::File::create(pin).map_err(Error::io(doing("make a pin")))?;
            rustix::mount::mount_bind(format!("/proc/self/ns/{name}"), pin)
                .map_err(Error::io(doing("pin a namespace")))?;
        }
    }
    Ok((Report::default(), vec![]))
}

/// Whether all pins of a sandbox hold namespaces, which come last.
pub fn pinned(spec: &SandboxSpec, pins: &Pins) -> bool {
    const NSFS: i64 = 0x6e73_6673;
    let own = [!spec.host_network, !spec.host_ipc, true];
    let holds = |pin: &std::path::PathBuf| rustix::fs::statfs(pin).is_ok_and(|fs| fs.f_type == NSFS);
    own.iter().zip(&pins.namespaces).all(|(own, pin)| !own || holds(pin))
}

/// Removes pins; absent is done.
pub fn unpin(pins: &Pins) -> Result<()> {
    for pin in pins.namespaces.iter().chain([&pins.shm]) {
        let _ = rustix::mount::unmount(pin, UnmountFlags::DETACH); // EINVAL: not mounted
        let removed = if *pin == pins.shm { fs::remove_dir(pin) } else { fs::remove_file(pin) };
        absent_is_done(removed).map_err(Error::io(format!("remove {}", pin.display())))?;
    }
    Ok(())
}
