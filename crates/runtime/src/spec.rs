//! Checks of a [`ContainerSpec`] and its OCI form.
//!
//! The OCI form says nothing of users, capabilities, seccomp or cgroups: [`crate::finish`] and
//! [`crate::cgroup`] see to those, for the first process and for later ones alike.

use std::path::{Component, Path};

use serde_json::{Value, json};

use crate::{ContainerSpec, Error, Result, SandboxSpec};

const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn invalid(field: &str, why: impl Into<String>) -> Error {
    Error::Invalid { field: field.into(), why: why.into() }
}

/// An id becomes a file name and a cgroup's name.
pub fn check_id(field: &str, id: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if id.is_empty() || id.len() > 200 || id.starts_with('.') || !id.bytes().all(plain) {
        return Err(invalid(field, "must be 1 to 200 of A-Z a-z 0-9 _ . - and not begin with a dot"));
    }
    Ok(())
}

fn check_path(field: &str, path: &Path) -> Result<()> {
    let text = path.as_os_str().as_encoded_bytes();
    if text.contains(&0) || !path.is_absolute() || path.components().any(|c| c == Component::ParentDir) {
        return Err(invalid(field, format!("{path:?} must be absolute, without .. and NUL")));
    }
    Ok(())
}

/// What can be refused before anything is made.
pub fn check_container(spec: &ContainerSpec) -> Result<()> {
    check_id("id", &spec.id)?;
    check_id("sandbox", &spec.sandbox)?;
    if spec.args.first().is_none_or(String::is_empty) {
        return Err(invalid("args", "must name a program"));
    }
    for (field, words) in [("args", &spec.args), ("env", &spec.env)] {
        if words.iter().any(|w| w.contains('\0')) {
            return Err(invalid(field, "must not contain NUL"));
        }
    }
    if spec.rootfs.lower.is_empty() {
        return Err(invalid("rootfs.lower", "must not be empty"));
    }
    for path in spec.rootfs.lower.iter().chain([&spec.rootfs.upper, &spec.rootfs.work]) {
        check_path("rootfs", path)?;
    }
    if !spec.cwd.as_os_str().is_empty() {
        check_path("cwd", &spec.cwd)?;
    }
    check_path("log", &spec.log)?;
    for mount in &spec.mounts {
        check_path("mounts.source", &mount.source)?;
        check_path("mounts.destination", &mount.destination)?;
        let at = &mount.destination;
        let reserved =
            at == Path::new("/") || at.starts_with("/proc") || at == Path::new("/dev") || at == Path::new("/sys");
        if reserved {
            return Err(invalid("mounts.destination", format!("{} belongs to the runtime", at.display())));
        }
    }
    crate::finish::capabilities(&spec.security)?;
    Ok(())
}

/// What can be refused before anything is made.
pub fn check_sandbox(spec: &SandboxSpec) -> Result<()> {
    check_id("id", &spec.id)?;
    if spec.hostname.len() > 64 || spec.hostname.contains('\0') {
        return Err(invalid("hostname", "must be at most 64 bytes without NUL"));
    }
    let cgroup = Path::new(&spec.cgroup);
    if spec.cgroup.is_empty() || !cgroup.components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(invalid("cgroup", "must be a relative path without .."));
    }
    for (name, value) in &spec.sysctls {
        sysctl_path(spec, name)?;
        if value.contains('\0') {
            return Err(invalid("sysctls", format!("{name}: must not contain NUL")));
        }
    }
    Ok(())
}

/// The file below `/proc/sys` of a sysctl that belongs to a namespace of the sandbox's own.
pub fn sysctl_path(spec: &SandboxSpec, name: &str) -> Result<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-/".contains(&b);
    let own_net = name.starts_with("net.") && !spec.host_network;
    let own_ipc = !spec.host_ipc
        && (["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p)) || name == "kernel.sem");
    if !name.bytes().all(plain) || name.contains("..") || name.contains('/') || !(own_net || own_ipc) {
        return Err(invalid("sysctls", format!("{name} does not belong to a namespace of the sandbox")));
    }
    Ok(format!("/proc/sys/{}", name.replace('.', "/")))
}

/// The OCI configuration. `shm` is what the sandbox's containers have in common as `/dev/shm`; `namespaces` are pairs of
/// an OCI type and the path to join.
pub fn oci(
    spec: &ContainerSpec,
    root: &Path,
    shm: Option<&Path>,
    namespaces: &[(&str, String)],
    host_pid: bool,
) -> Value {
    let security = &spec.security;
    let sys = if security.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", sys]}),
    ];
    if !spec.mounts.iter().any(|m| m.destination == Path::new("/dev/shm")) {
        let mut options = vec!["nosuid", "noexec", "nodev"];
        options.extend(if shm.is_some() { &["bind"][..] } else { &["mode=1777", "size=65536k"] });
        mounts.push(json!({"destination": "/dev/shm", "type": if shm.is_some() { "bind" } else { "tmpfs" },
                           "source": shm.unwrap_or(Path::new("shm")), "options": options}));
    }
    mounts.extend(spec.mounts.iter().map(|mount| {
        let access = if mount.read_only { "ro" } else { "rw" };
        json!({"destination": mount.destination, "type": "bind", "source": mount.source, "options": ["rbind", access]})
    }));
    // libcontainer passes over the propagation of single mounts: one that receives makes all of them do so.
    let receives = spec.mounts.iter().any(|mount| mount.receive_propagation);
    let mut spaces = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
    if !host_pid {
        spaces.push(json!({"type": "pid"}));
    }
    spaces.extend(namespaces.iter().map(|(kind, path)| json!({"type": kind, "path": path})));
    let unmasked = security.privileged || security.unmasked_proc;
    let (masked, read_only): (&[&str], &[&str]) = match (unmasked, security.privileged) {
        (false, _) => (&MASKED, &READ_ONLY),
        (true, _) => (&[], &[]),
    };
    json!({
        "ociVersion": "1.0.2",
        "process": {"terminal": spec.terminal, "user": {"uid": 0, "gid": 0}, "args": spec.args, "cwd": "/"},
        "root": {"path": root, "readonly": security.read_only_root},
        "mounts": mounts,
        "linux": {
            "namespaces": spaces,
            "maskedPaths": masked,
            "readonlyPaths": read_only,
            "rootfsPropagation": if receives { "slave" } else { "private" },
            "devices": if security.privileged { host_devices() } else { vec![] },
        },
    })
}

/// The host's devices directly in `/dev`, for privileged containers.
fn host_devices() -> Vec<Value> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let Ok(entries) = std::fs::read_dir("/dev") else { return vec![] };
    let device = |entry: std::fs::DirEntry| {
        let meta = entry.metadata().ok()?;
        let kind = if meta.file_type().is_block_device() { "b" } else { "c" };
        let own = ["ptmx", "console", "tty"].iter().any(|own| entry.file_name() == *own);
        if own || !(meta.file_type().is_block_device() || meta.file_type().is_char_device()) {
            return None;
        }
        let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
        Some(json!({"path": entry.path(), "type": kind, "major": major, "minor": minor,
                    "fileMode": meta.mode() & 0o777, "uid": meta.uid(), "gid": meta.gid()}))
    };
    entries.flatten().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mount, Rootfs};

    fn spec() -> ContainerSpec {
        ContainerSpec {
            id: "c".into(),
            sandbox: "s".into(),
            args: vec!["/bin/true".into()],
            rootfs: Rootfs { lower: vec!["/l".into()], upper: "/u".into(), work: "/w".into() },
            log: "/log".into(),
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn bad_values_are_refused_by_field() {
        check_container(&spec()).unwrap();
        let mount = |destination: &str| {
            vec![Mount {
                source: "/s".into(),
                destination: destination.into(),
                read_only: true,
                receive_propagation: false,
            }]
        };
        let long = "a".repeat(64 << 10);
        for (field, bad) in [
            ("id", ContainerSpec { id: "../x".into(), ..spec() }),
            ("id", ContainerSpec { id: "..".into(), ..spec() }),
            ("id", ContainerSpec { id: long, ..spec() }),
            ("args", ContainerSpec { args: vec![], ..spec() }),
            ("args", ContainerSpec { args: vec!["a\0b".into()], ..spec() }),
            ("cwd", ContainerSpec { cwd: "rel".into(), ..spec() }),
            ("mounts.destination", ContainerSpec { mounts: mount("/proc/.."), ..spec() }),
            ("mounts.destination", ContainerSpec { mounts: mount("/proc/sys"), ..spec() }),
            ("mounts.destination", ContainerSpec { mounts: mount("rel"), ..spec() }),
            ("mounts.destination", ContainerSpec { mounts: mount("/a\0"), ..spec() }),
            ("mounts.destination", ContainerSpec { mounts: mount("/"), ..spec() }),
        ] {
            match check_container(&bad) {
                Err(Error::Invalid { field: at, .. }) => assert_eq!(at, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }

    #[test]
    fn only_namespaced_sysctls() {
        let own = SandboxSpec { id: "s".into(), cgroup: "s".into(), ..SandboxSpec::default() };
        assert_eq!(sysctl_path(&own, "net.ipv4.ip_forward").unwrap(), "/proc/sys/net/ipv4/ip_forward");
        sysctl_path(&own, "kernel.shmmax").unwrap();
        for bad in ["kernel.core_pattern", "vm.swappiness", "net/../kernel/x", "net...kernel", "kernel.semx"] {
            sysctl_path(&own, bad).expect_err(bad);
        }
        let host = SandboxSpec { host_network: true, ..own };
        sysctl_path(&host, "net.ipv4.ip_forward").unwrap_err();
    }

    #[test]
    fn masked_paths_go_only_with_privilege_or_on_demand() {
        let paths = |spec: &ContainerSpec| oci(spec, Path::new("/r"), None, &[], false)["linux"]["maskedPaths"].clone();
        assert_eq!(paths(&spec()).as_array().unwrap().len(), MASKED.len());
        let mut open = spec();
        open.security.unmasked_proc = true;
        assert_eq!(paths(&open), json!([]));
    }
}
