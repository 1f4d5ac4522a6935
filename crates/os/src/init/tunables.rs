//! What the kernel is told at boot.

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Open files that any program may ask for.
const FILES: u64 = 1 << 20;

const SYSCTLS: [(&str, &str); 17] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    // Routers are listened to even by who forwards.
    ("net/ipv6/conf/all/accept_ra", "2"),
    ("net/ipv6/conf/default/accept_ra", "2"),
    ("net/core/somaxconn", "4096"),
    ("fs/inotify/max_user_instances", "8192"),
    ("fs/inotify/max_user_watches", "524288"),
    ("fs/protected_fifos", "1"),
    ("fs/protected_regular", "2"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("kernel/pid_max", "4194304"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/core_pattern", "core"),
    ("vm/max_map_count", "262144"),
];

/// Sets all of it; goes on after a failure.
pub fn set() -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, value) in SYSCTLS {
        if let Err(e) = fs::write(format!("/proc/sys/{name}"), value) {
            complaints.push(format!("{name}: {e}"));
        }
    }
    let limit = Rlimit { current: Some(FILES), maximum: Some(FILES) };
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        complaints.push(format!("open files: {e}"));
    }
    if let Err(e) = network::host::up(1) {
        complaints.push(format!("loopback: {e}"));
    }
    complaints
}
