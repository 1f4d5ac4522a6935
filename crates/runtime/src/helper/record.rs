//! What the helper knows, on disk: written first, removed last, each file replaced whole.
//!
//! Below the run directory: `sandboxes/ID.json`, `netns/ID{,.ipc,.uts}` (pinned namespaces), `netns/ID.shm` (shared memory)
//! and `containers/ID/{spec,state}.json` with the streams `stdin`, `stdout`, `stderr` and their journals. The directory
//! is expected to be lost with the processes it describes, so nothing is synced.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{ContainerSpec, Error, Result, Sandbox, State, user::Identity};

/// The changing part of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where it is.
    pub state: State,
    /// When the kernel started its first process (clock ticks since boot): a pid alone may be another's.
    #[serde(default)]
    pub start_ticks: u64,
    /// Whom it runs as.
    #[serde(default)]
    pub identity: Identity,
    /// Its standard input was ended.
    #[serde(default)]
    pub stdin_closed: bool,
}

/// What becomes of a container that a former helper recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// Runs: watch it.
    Watch,
    /// Ended while nobody watched: the exit is unknown.
    Lost,
    /// Ended and recorded so.
    Ended,
    /// Its start was never answered: nothing of it may remain.
    Discard,
}

/// Decides from the record and from the start ticks of the process that has the recorded pid now.
pub fn adopt(state: &State, recorded_ticks: u64, seen_ticks: Option<u64>) -> Adoption {
    match state {
        State::Creating => Adoption::Discard,
        State::Exited { .. } => Adoption::Ended,
        State::Running { .. } if seen_ticks == Some(recorded_ticks) => Adoption::Watch,
        State::Running { .. } => Adoption::Lost,
    }
}

/// What keeps a sandbox while none of its processes runs: mounts on these.
pub struct Pins {
    /// Files: network, IPC, UTS.
    pub namespaces: [PathBuf; 3],
    /// A directory: `/dev/shm` of its containers.
    pub shm: PathBuf,
}

/// A container's id and, if complete, its record.
pub type Found = (String, Option<(ContainerSpec, Record)>);

/// The run directory.
#[derive(Clone, Debug)]
pub struct Dir(PathBuf);

impl Dir {
    /// Opens (and makes) it; its owner alone may look inside.
    pub fn open(path: &Path) -> Result<Self> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        for dir in [path.to_owned(), path.join("containers"), path.join("sandboxes"), path.join("netns")] {
            private.create(&dir).map_err(Error::io(format!("make {}", dir.display())))?;
        }
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(path, mode).map_err(Error::io(format!("make {} private", path.display())))?;
        Ok(Self(path.to_owned()))
    }

    /// A file directly below.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A container's own directory.
    pub fn container(&self, id: &str) -> PathBuf {
        self.0.join("containers").join(id)
    }

    /// Where the namespaces and the shared memory of a sandbox are pinned.
    pub fn pins(&self, sandbox: &str) -> Pins {
        let dir = self.0.join("netns");
        let pin = |kind: &str| dir.join(format!("{sandbox}{kind}"));
        Pins { namespaces: [pin(""), pin(".ipc"), pin(".uts")], shm: pin(".shm") }
    }

    /// Records a new container.
    pub fn create(&self, spec: &ContainerSpec, record: &Record) -> Result<()> {
        let dir = self.container(&spec.id);
        fs::create_dir(&dir).map_err(Error::io(format!("make {}", dir.display())))?;
        replace(&dir.join("spec.json"), spec)?;
        self.save(&spec.id, record)
    }

    /// Records a container's state.
    pub fn save(&self, id: &str, record: &Record) -> Result<()> {
        replace(&self.container(id).join("state.json"), record)
    }

    /// Forgets a container.
    pub fn forget(&self, id: &str) -> Result<()> {
        let dir = self.container(id);
        absent_is_done(fs::remove_dir_all(&dir)).map_err(Error::io(format!("remove {}", dir.display())))
    }

    /// All recorded containers. One whose record is incomplete was never answered for: its id comes alone.
    pub fn containers(&self) -> Result<Vec<Found>> {
        let all = names(&self.0.join("containers"))?.into_iter().map(|id| {
            let dir = self.container(&id);
            let whole = read(&dir.join("spec.json")).zip(read(&dir.join("state.json")));
            (id, whole)
        });
        Ok(all.collect())
    }

    /// Records a sandbox.
    pub fn save_sandbox(&self, sandbox: &Sandbox) -> Result<()> {
        replace(&self.sandbox_file(&sandbox.spec.id), sandbox)
    }

    /// Forgets a sandbox.
    pub fn forget_sandbox(&self, id: &str) -> Result<()> {
        let file = self.sandbox_file(id);
        absent_is_done(fs::remove_file(&file)).map_err(Error::io(format!("remove {}", file.display())))
    }

    /// All recorded sandboxes.
    pub fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        let files = names(&self.0.join("sandboxes"))?.into_iter().filter(|name| name.ends_with(".json"));
        Ok(files.filter_map(|name| read(&self.0.join("sandboxes").join(name))).collect())
    }

    fn sandbox_file(&self, id: &str) -> PathBuf {
        self.0.join("sandboxes").join(format!("{id}.json"))
    }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).map_err(Error::io(format!("list {}", dir.display())))?;
    Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn replace(path: &Path, value: &impl Serialize) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let bytes = serde_json::to_vec(value).map_err(Error::io(doing()))?;
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path)).map_err(Error::io(doing()))
}

/// Removing what is absent is done.
pub fn absent_is_done(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What `/proc/PID/stat` tells: its state letter, start in clock ticks since boot, and wait status if it ended.
pub fn process(pid: i32) -> Option<(char, u64, i32)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether a process has executed a program since it was forked. Holds for one that ended, until it is reaped.
pub fn has_executed(pid: i32) -> bool {
    const FORKED_ONLY: u32 = 0x40;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let flags = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(6)?.parse().ok());
    flags.is_some_and(|flags: u32| flags & FORKED_ONLY == 0)
}

fn parse_stat(stat: &str) -> Option<(char, u64, i32)> {
    // The name may hold anything, brackets included: the fields start after the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let status = fields.get(49).and_then(|f| f.parse().ok()).unwrap_or(0);
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?, status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn adoption() {
        let running = State::Running { pid: 5, since: SystemTime::UNIX_EPOCH };
        assert_eq!(adopt(&running, 7, Some(7)), Adoption::Watch);
        assert_eq!(adopt(&running, 7, Some(8)), Adoption::Lost, "the pid is another's now");
        assert_eq!(adopt(&running, 7, None), Adoption::Lost);
        assert_eq!(adopt(&State::Creating, 0, None), Adoption::Discard);
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let mut fields = vec!["0"; 50];
        fields[0] = "Z";
        fields[19] = "1234";
        fields[49] = "256";
        assert_eq!(parse_stat(&format!("7 (a) b) {}", fields.join(" "))), Some(('Z', 1234, 256)));
        assert_eq!(process(std::process::id() as i32).unwrap().2, 0);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text: String) { parse_stat(&text); }
    }
}
