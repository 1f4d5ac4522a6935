//! cgroups: one type over the v1 hierarchies and v2.
//!
//! The helper makes, fills and removes the groups itself: libcgroups reads the mount table once per
//! controller and operation, which costs more than all the rest of a container's start.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use crate::{Error, Resources, Result, Stats, devices, sys};

/// Where the hierarchies are mounted; read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchies {
    /// A mount for each set of controllers.
    V1(Vec<Mount>),
    /// One mount for all.
    V2(PathBuf),
}

/// One v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    path: PathBuf,
    controllers: Vec<String>,
}

impl Hierarchies {
    /// What this host has mounted. Any v1 controller makes it v1: a hybrid host's v2 tree holds none.
    pub fn find() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let table = fs::read_to_string(path).map_err(Error::io(format!("read {path}")))?;
        Self::parse(&table).ok_or_else(|| Error::Helper("no cgroup hierarchy is mounted".into()))
    }

    fn parse(mountinfo: &str) -> Option<Self> {
        let (mut v1, mut v2) = (Vec::new(), None);
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let (Some(path), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
            let options = right.split(' ').nth(2).unwrap_or_default();
            match kind {
                "cgroup" => {
                    let controllers = options.split(',').filter(|o| !matches!(*o, "rw" | "ro" | "xattr"));
                    let controllers = controllers.map(str::to_owned).collect();
                    v1.push(Mount { path: path.into(), controllers });
                }
                "cgroup2" => v2 = v2.or(Some(PathBuf::from(path))),
                _ => {}
            }
        }
        if v1.iter().any(|m| m.controllers.iter().any(|c| c == "memory")) {
            Some(Self::V1(v1))
        } else {
            v2.map(Self::V2)
        }
    }

    /// What [`crate::finish`] mounts inside a container: each v1 hierarchy's options, or one empty name for v2.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::V1(mounts) => mounts.iter().map(|m| m.controllers.join(",")).collect(),
            Self::V2(_) => vec![String::new()],
        }
    }

    /// All groups at and below `path` in any hierarchy, the deepest first.
    pub fn below(&self, path: &Path) -> Vec<PathBuf> {
        let roots: Vec<&Path> = match self {
            Self::V1(mounts) => mounts.iter().map(|m| m.path.as_path()).collect(),
            Self::V2(root) => vec![root],
        };
        let mut found = std::collections::BTreeSet::new();
        for root in roots {
            let mut unread = vec![root.join(path)];
            while let Some(dir) = unread.pop() {
                let Ok(entries) = fs::read_dir(&dir) else { continue };
                unread.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
                found.extend(dir.strip_prefix(root).map(Path::to_owned));
            }
        }
        found.into_iter().rev().collect() // in order, a parent is before its children
    }

    /// Kills all that runs in the group at `path` and in those that it made itself, and removes them. `false`: some
    /// processes are still ending.
    pub fn clear(&self, path: &Path) -> bool {
        let groups = self.below(path);
        groups.iter().for_each(|path| self.group(path).kill());
        groups.iter().map(|path| self.group(path).remove()).fold(true, |all, gone| all & gone)
    }

    /// The group at `path` below the roots, e.g. `instance/pod/container`.
    pub fn group(&self, path: impl Into<PathBuf>) -> Group<'_> {
        Group { hierarchies: self, path: path.into() }
    }
}

/// One control group, which may exist or not.
pub struct Group<'a> {
    hierarchies: &'a Hierarchies,
    path: PathBuf,
}

const V2_CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

impl Group<'_> {
    /// Its directories, one per hierarchy.
    fn dirs(&self) -> Vec<PathBuf> {
        match self.hierarchies {
            Hierarchies::V1(mounts) => mounts.iter().map(|m| m.path.join(&self.path)).collect(),
            Hierarchies::V2(root) => vec![root.join(&self.path)],
        }
    }

    /// The directory in which `controller` (v1 name) is controlled.
    fn dir(&self, controller: &str) -> Option<PathBuf> {
        match self.hierarchies {
            Hierarchies::V1(mounts) => {
                let mount = mounts.iter().find(|m| m.controllers.iter().any(|c| c == controller))?;
                Some(mount.path.join(&self.path))
            }
            Hierarchies::V2(root) => Some(root.join(&self.path)),
        }
    }

    /// Makes the group and its parents; existing ones stay as they are.
    pub fn create(&self) -> Result<()> {
        match self.hierarchies {
            Hierarchies::V1(mounts) => mounts.iter().try_for_each(|mount| {
                let dir = mount.path.join(&self.path);
                if mount.controllers.iter().any(|c| c == "cpuset") {
                    return inherit_cpuset(&mount.path, &self.path);
                }
                fs::create_dir_all(&dir).map_err(Error::io(format!("make {}", dir.display())))
            }),
            Hierarchies::V2(root) => {
                let mut dir = root.clone();
                for part in &self.path {
                    for controller in V2_CONTROLLERS {
                        // Refused for controllers the host lacks: setting a limit says so where it matters.
                        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
                    }
                    dir.push(part);
                    make_dir(&dir)?;
                }
                Ok(())
            }
        }
    }

    /// Moves the calling process, which must have one thread, into the group.
    ///
    /// v1 by `tasks`: to move its own thread the kernel takes no lock on all forks of the host, whose first
    /// writer waits for an RCU grace period (13 ms of a start's 25, measured).
    pub fn join(&self) -> Result<()> {
        let file = match self.hierarchies {
            Hierarchies::V1(_) => "tasks",
            Hierarchies::V2(_) => "cgroup.procs",
        };
        self.dirs().iter().try_for_each(|dir| write(&dir.join(file), "0"))
    }

    /// Sets the limits that are given and leaves the others alone.
    pub fn limit(&self, r: &Resources) -> Result<()> {
        let set = |controller: &str, file: &str, value: String| match self.dir(controller) {
            Some(dir) => write(&dir.join(file), &value),
            None => Err(Error::Helper(format!("this host has no {controller} cgroup controller"))),
        };
        let v2 = matches!(self.hierarchies, Hierarchies::V2(_));
        if let Some(shares) = r.cpu_shares {
            let shares = shares.clamp(2, 262_144);
            if v2 {
                set("cpu", "cpu.weight", weight(shares).to_string())?;
            } else {
                set("cpu", "cpu.shares", shares.to_string())?;
            }
        }
        if r.cpu_quota.is_some() || r.cpu_period.is_some() {
            let period = r.cpu_period.unwrap_or(100_000);
            let quota = r.cpu_quota.filter(|q| *q > 0);
            if v2 {
                let quota = quota.map_or_else(|| "max".into(), |q| q.to_string());
                set("cpu", "cpu.max", format!("{quota} {period}"))?;
            } else {
                set("cpu", "cpu.cfs_period_us", period.to_string())?;
                set("cpu", "cpu.cfs_quota_us", quota.unwrap_or(-1).to_string())?;
            }
        }
        if let Some(memory) = r.memory {
            // What is limited shall not go on in the swap, which belongs to all. Not every kernel counts that.
            let swap = |file: &str, value: String| match set("memory", file, value) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
            if v2 {
                set("memory", "memory.max", unlimited("max", memory))?;
                swap("memory.swap.max", if memory < 0 { "max".into() } else { "0".into() })?;
            } else {
                // The kernel refuses what would leave this one below the other: to raise them it goes first, to lower
                // them last. What is refused for good changes nothing.
                let with_swap = || swap("memory.memsw.limit_in_bytes", unlimited("-1", memory));
                let raised = with_swap().is_ok();
                set("memory", "memory.limit_in_bytes", unlimited("-1", memory))?;
                if !raised {
                    with_swap()?;
                }
            }
        }
        match r.pids {
            Some(pids) => set("pids", "pids.max", unlimited("max", pids)),
            None => Ok(()),
        }
    }

    /// Denies every device but those that are harmless, to the group and whatever will be below it.
    pub fn deny_devices(&self) -> Result<()> {
        match self.hierarchies {
            Hierarchies::V1(_) => {
                let Some(dir) = self.dir("devices") else { return Ok(()) };
                write(&dir.join("devices.deny"), "a")?;
                devices::v1().iter().try_for_each(|rule| write(&dir.join("devices.allow"), rule))
            }
            Hierarchies::V2(root) => {
                let dir = root.join(&self.path);
                let doing = || Error::io(format!("deny devices to {}", dir.display()));
                let group = fs::File::open(&dir).map_err(doing())?;
                sys::attach_device_program(group.as_fd(), &devices::program()).map_err(doing())
            }
        }
    }

    /// What the group uses.
    pub fn stats(&self) -> Result<Stats> {
        let read = |controller: &str, file: &str| -> Result<String> {
            let path = self.dir(controller).unwrap_or_default().join(file);
            fs::read_to_string(&path).map_err(Error::io(format!("read {}", path.display())))
        };
        let (cpu_ns, used, inactive) = match self.hierarchies {
            Hierarchies::V1(_) => (
                number(&read("cpuacct", "cpuacct.usage")?),
                number(&read("memory", "memory.usage_in_bytes")?),
                field(&read("memory", "memory.stat")?, "total_inactive_file"),
            ),
            Hierarchies::V2(_) => (
                field(&read("cpu", "cpu.stat")?, "usage_usec") * 1000,
                number(&read("memory", "memory.current")?),
                field(&read("memory", "memory.stat")?, "inactive_file"),
            ),
        };
        let pids = number(&read("pids", "pids.current")?);
        Ok(Stats { cpu_ns, memory: used.saturating_sub(inactive), pids })
    }

    /// Whether the kernel killed a process of the group for memory.
    pub fn oom_killed(&self) -> bool {
        let file = match self.hierarchies {
            Hierarchies::V1(_) => "memory.oom_control",
            Hierarchies::V2(_) => "memory.events",
        };
        let path = self.dir("memory").unwrap_or_default().join(file);
        fs::read_to_string(path).is_ok_and(|text| field(&text, "oom_kill") > 0)
    }

    /// Kills every process in the group; they end soon after, not at once.
    pub fn kill(&self) {
        let Some(dir) = self.dir("freezer") else { return };
        if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        // Frozen, a group cannot fork away from its killer; the signal is delivered by the thaw.
        let _ = fs::write(dir.join("freezer.state"), "FROZEN");
        for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = fs::write(dir.join("freezer.state"), "THAWED");
    }

    /// Removes the group's directories; absent is done. `false`: processes in it are still ending.
    pub fn remove(&self) -> bool {
        let mut gone = true;
        for dir in self.dirs() {
            gone &= match fs::remove_dir(&dir) {
                Ok(()) => true,
                Err(e) => e.kind() == io::ErrorKind::NotFound,
            };
        }
        gone
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io(format!("make {}", dir.display()))(e)),
        _ => Ok(()),
    }
}

/// A v1 cpuset group takes no process before its CPUs and memory nodes are set.
fn inherit_cpuset(root: &Path, path: &Path) -> Result<()> {
    let mut dir = root.to_owned();
    for part in path {
        let parent = dir.clone();
        dir.push(part);
        make_dir(&dir)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
            if own.trim().is_empty() {
                let theirs = fs::read_to_string(parent.join(file)).unwrap_or_default();
                write(&dir.join(file), theirs.trim())?;
            }
        }
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).map_err(Error::io(format!("write {value} to {}", path.display())))
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map_or(0, number)
}

fn unlimited(word: &str, value: i64) -> String {
    if value < 0 { word.into() } else { value.to_string() }
}

/// v1 shares (2..=262144) as v2 weight (1..=10000), as the kernel's documentation maps them.
fn weight(shares: u64) -> u64 {
    1 + (shares - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_is_v1_and_unified_is_v2() {
        let hybrid = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let Some(found @ Hierarchies::V1(_)) = Hierarchies::parse(hybrid) else { panic!("not v1") };
        assert_eq!(found.group("a/b").dir("cpuacct").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        let unified = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Hierarchies::parse(unified), Some(Hierarchies::V2("/sys/fs/cgroup".into())));
        assert_eq!(Hierarchies::parse(""), None);
    }

    /// The v2 tree of a hybrid host has no controllers, yet takes programs.
    #[test]
    fn v2_denies_devices_by_program() {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = table.lines().find(|l| l.contains(" - cgroup2 ")).and_then(|l| l.split(' ').nth(4));
        let hierarchies = Hierarchies::V2(mount.expect("a cgroup2 mount").into());
        let group = hierarchies.group(format!("rast-test-{}", std::process::id()));
        group.create().unwrap();
        let join = format!("echo $$ > {}/cgroup.procs", group.dirs()[0].display());
        let open = |device: &str| {
            let script = format!("{join} && exec 3<{device}");
            std::process::Command::new("sh").args(["-c", &script]).output().unwrap().status.success()
        };
        let before = open("/dev/kmsg");
        group.deny_devices().unwrap();
        let seen = [before, open("/dev/null"), open("/dev/urandom"), open("/dev/kmsg")];
        assert!(group.remove());
        assert_eq!(seen, [true, true, true, false]);
    }

    #[test]
    fn weights_span_the_range() {
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 39, 10_000]);
    }

    proptest::proptest! {
        #[test]
        fn parsers_never_panic(text: String) {
            Hierarchies::parse(&text);
            field(&text, "oom_kill");
        }
    }
}
