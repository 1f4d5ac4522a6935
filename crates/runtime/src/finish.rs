//! The last steps of a process before it becomes the container's program.
//!
//! The first process of a container made by libcontainer and those of `exec` take the same steps here, so that both
//! hold exactly the same rights; other backends are told them. libcontainer would drop capabilities before a filter without
//! `no_new_privileges` can be loaded, ignores a failed `PR_SET_NO_NEW_PRIVS`, and gives `exec` no filter.

use std::{
    ffi::CString,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    process::{Gid, Resource, Rlimit, Uid},
    thread::{CapabilitySet, CapabilitySets},
};

use crate::{Error, Result, Security, sys, user::Identity};

/// The program and the rights it gets.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Its directory, made when absent.
    pub cwd: PathBuf,
    /// Whom it runs as.
    pub identity: Identity,
    /// What it may do at most.
    pub capabilities: CapabilitySet,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// A classic BPF program.
    pub seccomp: Option<Vec<u8>>,
    /// The v1 hierarchies to show in `/sys/fs/cgroup` (`memory`, `cpu,cpuacct`, …); `[""]` for v2.
    pub cgroups: Vec<String>,
}

/// The capabilities of a specification: all that this process may hand on when privileged.
pub fn capabilities(security: &Security) -> Result<CapabilitySet> {
    if security.privileged {
        let held = rustix::thread::capabilities(None).map_err(Error::io("read own capabilities"))?;
        return Ok(held.permitted);
    }
    security.capabilities.iter().try_fold(CapabilitySet::empty(), |set, name| {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        let found = CapabilitySet::from_name(bare).ok_or_else(|| Error::Invalid {
            field: "security.capabilities".into(),
            why: format!("{name} is no capability"),
        })?;
        Ok(set | found)
    })
}

/// Becomes the program. Returns only to say why that failed, in plain words.
pub fn exec(payload: &Payload) -> String {
    match steps(payload) {
        Ok(never) => match never {},
        Err(why) => why,
    }
}

fn steps(payload: &Payload) -> Result<std::convert::Infallible, String> {
    let fail = |what: &'static str| move |e: rustix::io::Errno| format!("{what}: {e}");
    let uid = Uid::from_raw(payload.identity.uid);
    let gid = Gid::from_raw(payload.identity.gid);

    show_cgroups(&payload.cgroups).map_err(|e| format!("mount /sys/fs/cgroup: {e}"))?;
    let _ = rustix::process::setrlimit(Resource::Nofile, file_limit());
    own_stdio(uid, gid);
    enter(&payload.cwd)?;
    if !payload.no_new_privileges {
        // Without no_new_privileges only CAP_SYS_ADMIN may load a filter, and that goes next.
        load(payload)?;
    }
    let all = (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    for capability in all.filter(|c| !payload.capabilities.contains(*c)) {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {} // INVAL: this kernel does not have it
            Err(e) => return Err(format!("drop {capability:?}: {e}")),
        }
    }
    rustix::thread::clear_ambient_capability_set().map_err(fail("clear ambient capabilities"))?;
    rustix::thread::set_keep_capabilities(true).map_err(fail("keep capabilities"))?;
    let groups: Vec<_> = payload.identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups).map_err(fail("set groups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(fail("set group"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(fail("set user"))?;
    let sets = CapabilitySets {
        effective: payload.capabilities,
        permitted: payload.capabilities,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(fail("set capabilities"))?;
    if payload.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(fail("set no_new_privileges"))?;
        if !rustix::thread::no_new_privs().map_err(fail("read no_new_privileges"))? {
            return Err("no_new_privileges did not hold".into());
        }
        load(payload)?;
    }
    sys::seal_from(3).map_err(|e| format!("seal descriptors: {e}"))?;
    become_program(&payload.args, &payload.env)
}

fn load(payload: &Payload) -> Result<(), String> {
    match &payload.seccomp {
        Some(program) => sys::load_seccomp(program).map_err(|e| format!("load seccomp filter: {e}")),
        None => Ok(()),
    }
}

/// Mounts the container's own groups, read-only. `/sys` is a fresh sysfs: no link of the image is in the way.
fn show_cgroups(hierarchies: &[String]) -> io::Result<()> {
    use rustix::mount::{MountFlags, mount};
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let root = Path::new("/sys/fs/cgroup");
    if let [unified] = hierarchies
        && unified.is_empty()
    {
        return Ok(mount("cgroup", root, "cgroup2", flags | MountFlags::RDONLY, None)?);
    }
    if hierarchies.is_empty() || !root.is_dir() {
        return Ok(());
    }
    mount("tmpfs", root, "tmpfs", flags, Some(c"mode=755,size=64k"))?;
    for controllers in hierarchies {
        let dir = root.join(controllers.trim_start_matches("name="));
        fs::create_dir(&dir)?;
        let data = CString::new(controllers.as_str())?;
        mount("cgroup", &dir, "cgroup", flags | MountFlags::RDONLY, Some(data.as_c_str()))?;
    }
    Ok(rustix::mount::mount_remount(root, flags | MountFlags::RDONLY, c"")?)
}

/// A soft limit on open files that programs are used to, within the hard one we hold.
pub fn file_limit() -> Rlimit {
    const SOFT: u64 = 65_536;
    let held = rustix::process::getrlimit(Resource::Nofile);
    Rlimit { current: Some(held.maximum.map_or(SOFT, |hard| hard.min(SOFT))), ..held }
}

/// Lets the user reopen its own streams (`/dev/stdout`). `/dev/null` belongs to everybody already.
fn own_stdio(uid: Uid, gid: Gid) {
    let null = rustix::fs::makedev(1, 3);
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if rustix::fs::fstat(fd).is_ok_and(|s| s.st_rdev != null) {
            let _ = rustix::fs::fchown(fd, Some(uid), Some(gid));
        }
    }
}

fn enter(cwd: &Path) -> Result<(), String> {
    let cwd = if cwd.as_os_str().is_empty() { Path::new("/") } else { cwd };
    if !cwd.exists() {
        fs::create_dir_all(cwd).map_err(|e| format!("make working directory {}: {e}", cwd.display()))?;
    }
    std::env::set_current_dir(cwd).map_err(|e| format!("enter working directory {}: {e}", cwd.display()))?;
    // CVE-2024-21626: through a leaked descriptor the directory could lie outside the root.
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(format!("working directory {} lies outside the container", cwd.display())),
    }
}

/// Where programs are looked for when the container does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn become_program(args: &[String], env: &[String]) -> Result<std::convert::Infallible, String> {
    let strings = |words: &[String]| -> Result<Vec<CString>, String> {
        words.iter().map(|w| CString::new(w.as_str()).map_err(|_| "NUL in an argument".to_owned())).collect()
    };
    let (argv, envp) = (strings(args)?, strings(env)?);
    let program = args.first().ok_or("no program")?;
    let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![program.into()]
    } else {
        path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(program)).collect()
    };
    let mut denied = false;
    for candidate in &candidates {
        let Ok(file) = CString::new(candidate.as_os_str().as_encoded_bytes()) else { continue };
        let Err(errno) = nix::unistd::execve(&file, &argv, &envp);
        match errno {
            nix::Error::ENOENT | nix::Error::ENOTDIR => {
                // The file is there and something it names is not: the interpreter or the loader.
                if fs::metadata(candidate).is_ok_and(|m| m.is_file()) {
                    return Err(format!("exec: {program:?}: its interpreter is missing from the image"));
                }
            }
            nix::Error::EACCES => {
                denied |= fs::metadata(candidate).is_ok_and(|m| m.permissions().mode() & 0o111 == 0 || m.is_dir())
                    || program.contains('/')
            }
            other => return Err(format!("exec: {program:?}: {}", other.desc().to_lowercase())),
        }
    }
    if denied {
        return Err(format!("exec: {program:?}: permission denied"));
    }
    if program.contains('/') {
        return Err(format!("exec: {program:?}: no such file or directory"));
    }
    Err(format!("exec: {program:?}: executable file not found in $PATH"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_exact() {
        let of = |names: &[&str]| {
            capabilities(&Security { capabilities: names.iter().map(|n| (*n).into()).collect(), ..Security::default() })
        };
        assert_eq!(of(&[]).unwrap(), CapabilitySet::empty());
        assert_eq!(of(&["CAP_CHOWN", "NET_RAW"]).unwrap(), CapabilitySet::CHOWN | CapabilitySet::NET_RAW);
        assert!(matches!(of(&["CAP_EVERYTHING"]), Err(Error::Invalid { .. })));
    }
}
