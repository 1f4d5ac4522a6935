//! What an instance has on its host, found without asking it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{Instance, eventually};

/// The helper of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// Its process.
    pub pid: i32,
    /// The instance's name, which cgroups, links and tables carry.
    pub instance: String,
}

impl Instance {
    /// Its helper, as soon as there is one.
    pub fn helper(&self) -> Helper {
        eventually("the helper runs", || self.find_helper().ok_or_else(|| "absent".to_owned()))
    }

    fn find_helper(&self) -> Option<Helper> {
        let dir = self.root().join("run/rastos/runtime");
        processes().into_iter().find_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words: Vec<&str> = std::str::from_utf8(&line).ok()?.split('\0').collect();
            let after = |flag| words.iter().position(|w| *w == flag).and_then(|at| words.get(at + 1).copied());
            // A worker of it looks alike until it has become a container's program.
            let child = parent(pid).is_some_and(|up| fs::read(format!("/proc/{up}/cmdline")).is_ok_and(|l| l == line));
            let own = words.get(1) == Some(&"helper") && after("--dir").map(Path::new) == Some(&dir) && !child;
            own.then(|| Helper { pid, instance: after("--instance").unwrap_or_default().to_owned() })
        })
    }

    /// The host's pid of the first process of a pod's only container.
    pub fn first_process(&self, pod: &Value) -> i32 {
        let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let groups = cgroups(&self.helper().instance);
        let own = groups.iter().filter(|group| group.to_string_lossy().contains(&uid));
        own.flat_map(|group| members(group)).find(|pid| is_first(*pid)).expect("the container runs")
    }

    /// Ends and takes away all that a reboot would, and keeps the disk.
    pub fn reboot(&mut self) {
        let helper = self.helper();
        self.kill();
        end(helper.pid);
        let groups = cgroups(&helper.instance);
        groups.iter().flat_map(|group| members(group)).for_each(end);
        for group in groups.iter().rev() {
            eventually("the cgroup goes", || fs::remove_dir(group).map_err(|e| format!("{}: {e}", group.display())));
        }
        for mount in mounts_below(self.root()).iter().rev() {
            umount2(mount, MntFlags::MNT_DETACH).expect("it can be unmounted");
        }
        for (tool, words) in [
            ("nft", vec!["delete", "table", "inet", &helper.instance]),
            ("ip", vec!["route", "flush", "root", self.pod_range()]),
        ] {
            let done = std::process::Command::new(tool).args(words).status().expect("the tool starts");
            assert!(done.success(), "{tool}: {done}");
        }
        fs::remove_dir_all(self.root().join("run")).expect("the run directory goes");
    }

    /// Of pods that are gone no group, link, layer, record or mount stays; `idle` are the instance's own mounts.
    #[track_caller]
    pub fn nothing_of_pods_is_left(&self, idle: &[PathBuf]) {
        let helper = self.helper();
        eventually("all of the pods goes", || {
            let mut left: Vec<String> = Vec::new();
            let groups = cgroups(&helper.instance);
            left.extend(
                groups.iter().filter(|g| g.to_string_lossy().contains("/pod")).map(|g| format!("{}", g.display())),
            );
            let mounts = mounts_below(self.root());
            left.extend(mounts.iter().filter(|m| !idle.contains(m)).map(|mount| format!("mount {}", mount.display())));
            let links = std::process::Command::new("ip").args(["-o", "link"]).output().expect("ip");
            let links = String::from_utf8_lossy(&links.stdout).into_owned();
            left.extend(links.lines().filter(|l| l.contains(&format!("{}_", helper.instance))).map(str::to_owned));
            for dir in
                ["run/rastos/runtime/containers", "run/rastos/runtime/sandboxes", "var/lib/rastos/images/snapshots"]
            {
                let entries = fs::read_dir(self.root().join(dir)).into_iter().flatten().flatten();
                left.extend(entries.map(|entry| format!("{}", entry.path().display())));
            }
            if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
        });
    }
}

/// Kills a process and waits until it is gone; a zombie is.
pub fn end(pid: i32) {
    let _gone_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
    eventually("the process ends", || if alive(pid) { Err(format!("{pid} alive")) } else { Ok(()) });
}

/// Whether a process runs.
pub fn alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

/// All processes of the host.
pub fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// Whether it is pid 1 of a namespace of its own.
fn is_first(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("NSpid:") && line.split_whitespace().skip(2).last() == Some("1"))
}

/// The groups of an instance in all hierarchies, each before what is below it.
pub fn cgroups(instance: &str) -> Vec<PathBuf> {
    let mut unread: Vec<PathBuf> = mounts(|kind| kind.starts_with("cgroup")).iter().map(|m| m.join(instance)).collect();
    let mut found = BTreeSet::new();
    while let Some(dir) = unread.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        unread.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
        found.insert(dir);
    }
    found.into_iter().collect()
}

fn members(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Where something is mounted at or below a directory, in the order of mounting.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    mounts(|_| true).into_iter().filter(|at| at.starts_with(dir)).collect()
}

fn mounts(wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let of = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        wanted(right.split(' ').next()?).then(|| left.split(' ').nth(4).map(PathBuf::from))?
    };
    table.lines().filter_map(of).collect()
}
