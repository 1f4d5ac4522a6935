//! Containers: sandboxes, processes, cgroups, seccomp, terminals and logs, behind one trait.
//!
//! Knows nothing of the API. A *sandbox* is what the containers of one pod share (network, IPC and UTS
//! namespaces, a parent cgroup); a *container* is one process tree in it. Both outlive `rast`.

use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::broadcast,
};

mod cgroup;
mod client;
mod devices;
mod finish;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod helper;
mod protocol;
mod seccomp;
mod spec;
mod sys;
mod user;
mod wire;

pub use client::{Config, Keeper};

/// What the containers of one pod share.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// Unique on this host; file name safe.
    pub id: String,
    /// The UTS host name.
    pub hostname: String,
    /// Use the host's network namespace instead of an own one.
    pub host_network: bool,
    /// Use the host's PID namespace.
    pub host_pid: bool,
    /// Use the host's IPC namespace.
    pub host_ipc: bool,
    /// Namespaced sysctls, dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// Path below the cgroup root for all containers of the sandbox, without leading slash.
    pub cgroup: String,
    /// Limits of the pod as a whole.
    pub resources: Resources,
}

/// A sandbox that exists.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sandbox {
    /// What it was made from.
    pub spec: SandboxSpec,
    /// The pinned network namespace; the host's own when `host_network`.
    pub netns: PathBuf,
}

/// cgroup limits; `None` is unlimited. v1 and v2 values are derived from these.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative CPU weight in v1 shares (2..=262144).
    pub cpu_shares: Option<u64>,
    /// CPU time per period, microseconds.
    pub cpu_quota: Option<i64>,
    /// The CPU period, microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// `/proc/self/oom_score_adj`, clamped to what this process may set.
    pub oom_score_adj: Option<i32>,
}

/// The root of a container: overlay layers, mounted only inside the container's own mount namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Rootfs {
    /// Lower directories, topmost first.
    pub lower: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// Overlay's work directory, on the same filesystem as `upper`.
    pub work: PathBuf,
}

/// A mount inside a container.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// A directory or file of the host.
    pub source: PathBuf,
    /// Absolute, inside the container.
    pub destination: PathBuf,
    /// Mounted read-only.
    pub read_only: bool,
    /// Propagation towards the container (`HostToContainer`), else private.
    pub receive_propagation: bool,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Seccomp {
    /// rastOS's allow-list.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// An OCI seccomp profile on the host.
    Localhost(PathBuf),
}

/// Rights of a container's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Security {
    /// All capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// The exact capabilities held (`CAP_CHOWN`, …); empty when `user` is not root unless ambient was asked for.
    pub capabilities: Vec<String>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// The root is mounted read-only.
    pub read_only_root: bool,
    /// Leave `/proc` unmasked.
    pub unmasked_proc: bool,
}

/// Whom a container runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct User {
    /// `name`, `uid`, `name:group` or `uid:gid`, resolved against the image's passwd and group files.
    pub spec: String,
    /// Overrides the primary group.
    pub gid: Option<u32>,
    /// Supplementary groups besides those of the image's group file.
    pub groups: Vec<u32>,
    /// Refuse to start as uid 0.
    pub must_not_be_root: bool,
}

/// What makes a container of its bundle. All else (streams, cgroups, waiting, exec, removal) is the same for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Backend {
    /// youki's library, in the helper's own workers.
    #[default]
    Libcontainer,
    /// crun at this path, executed once to create and once to start.
    Crun(PathBuf),
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Unique on this host; file name safe.
    pub id: String,
    /// The sandbox it runs in.
    pub sandbox: String,
    /// Its root.
    pub rootfs: Rootfs,
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, made when absent.
    pub cwd: PathBuf,
    /// Whom it runs as.
    pub user: User,
    /// Give it a terminal.
    pub terminal: bool,
    /// Keep its standard input open for `attach`.
    pub stdin: bool,
    /// Close standard input after the first attached client leaves.
    pub stdin_once: bool,
    /// Mounts besides `/proc`, `/sys`, `/dev` and what belongs to them.
    pub mounts: Vec<Mount>,
    /// Its limits, in a cgroup below the sandbox's.
    pub resources: Resources,
    /// Its rights.
    pub security: Security,
    /// Its CRI log file, which nobody else writes to; directories are made.
    pub log: PathBuf,
    /// What makes it. Set by the [`Keeper`] to its own.
    pub backend: Backend,
    /// Opaque to the runtime, kept with the record and given back by [`Runtime::list`].
    pub labels: BTreeMap<String, String>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exit {
    /// The exit code (128 + signal when killed); `None` when the kernel no longer tells.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for memory.
    pub oom: bool,
    /// When it was seen to end.
    pub at: SystemTime,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum State {
    /// Recorded, its process not running yet.
    Creating,
    /// Running, as this process of the host.
    Running {
        /// The host's pid of its first process.
        pid: i32,
        /// When it was started.
        since: SystemTime,
    },
    /// Ended.
    Exited {
        /// When it was started.
        since: SystemTime,
        /// How it ended.
        exit: Exit,
    },
}

/// A container that exists.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Container {
    /// What it was made from.
    pub spec: ContainerSpec,
    /// Where it is.
    pub state: State,
}

/// What the runtime tells unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A container ended.
    Exited {
        /// Its id.
        id: String,
        /// How.
        exit: Exit,
    },
    /// The connection to the helper was made anew: list again.
    Resync,
}

/// A process to run inside a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Give it a terminal.
    pub terminal: bool,
    /// Connect standard input.
    pub stdin: bool,
    /// The terminal's first size: columns, rows.
    pub size: Option<(u16, u16)>,
}

/// The streams of a process. `wait` may be awaited once.
pub struct Process {
    /// Towards the process; absent when not asked for. Dropping it closes the process's input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// From the process.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// From the process; absent with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Changes a terminal's size: columns, rows.
    pub resize: Box<dyn Fn(u16, u16) + Send + Sync>,
    /// The end of the process (attach: of the container).
    pub wait: futures::future::BoxFuture<'static, Result<Exit>>,
}

/// What a container uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Stats {
    /// CPU time since the start, nanoseconds.
    pub cpu_ns: u64,
    /// Memory charged, bytes, without inactive file cache.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What the runtime could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container or sandbox does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// It exists already.
    #[error("{0} exists already")]
    Exists(String),
    /// The container is not running.
    #[error("{0} is not running")]
    NotRunning(String),
    /// The container's own program could not be started: absent, not executable, bad user.
    #[error("start {id}: {why}")]
    Start {
        /// The container.
        id: String,
        /// The cause in plain words, e.g. `exec: "foo": executable file not found in $PATH`.
        why: String,
    },
    /// The container would run as root and must not.
    #[error("start {id}: the image runs as root (user {user:?}) and runAsNonRoot is set; set runAsUser")]
    RunsAsRoot {
        /// The container.
        id: String,
        /// The user asked for.
        user: String,
    },
    /// A value of the spec is refused before anything is made.
    #[error("{field}: {why}")]
    Invalid {
        /// The field of the spec.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The helper is gone or speaks another language.
    #[error("helper: {0}")]
    Helper(String),
    /// The host refused.
    #[error("{doing}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: what was being done when the host refused.
    pub(crate) fn io<E: Into<std::io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source: source.into() }
    }
}

/// The result of a runtime operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Starts and ends containers. All operations are safe to repeat.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Makes (or finds) a sandbox: its namespaces are pinned and its cgroup exists.
    async fn make_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox>;
    /// Removes a sandbox, its containers first; absent is done.
    async fn remove_sandbox(&self, id: &str) -> Result<()>;
    /// All sandboxes.
    async fn sandboxes(&self) -> Result<Vec<Sandbox>>;
    /// Creates and starts a container. On error nothing of it remains.
    async fn start(&self, spec: &ContainerSpec) -> Result<Container>;
    /// Sends a signal to a container's first process.
    async fn kill(&self, id: &str, signal: i32) -> Result<()>;
    /// Kills what runs and removes a container's record; absent is done. The log stays.
    async fn remove(&self, id: &str) -> Result<()>;
    /// All containers, ended ones included until removed.
    async fn list(&self) -> Result<Vec<Container>>;
    /// Exits from now on. A receiver that lags must [`Runtime::list`] again.
    fn events(&self) -> broadcast::Receiver<Event>;
    /// Runs a process inside a running container.
    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Process>;
    /// Connects to the streams of a running container's first process.
    async fn attach(&self, id: &str) -> Result<Process>;
    /// What a container uses now.
    async fn stats(&self, id: &str) -> Result<Stats>;
    /// Changes the limits of a running container.
    async fn update(&self, id: &str, resources: &Resources) -> Result<()>;
    /// Continues the log in a fresh file at the spec's path, after the caller has renamed the old one.
    async fn reopen_log(&self, id: &str) -> Result<()>;
}
