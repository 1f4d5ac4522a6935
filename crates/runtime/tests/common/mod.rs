//! A helper of its own for each test, with busybox as the image.

#![allow(dead_code)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use runtime::{
    Backend, Config, Container, ContainerSpec, Event, ExecSpec, Exit, Keeper, Rootfs, Runtime, SandboxSpec, Security,
    State, User,
};
use tokio::io::AsyncReadExt;

/// What containers hold when nothing else is said.
pub const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SYS_CHROOT",
];

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub instance: String,
    pub backend: Backend,
    pub keeper: Arc<Keeper>,
}

pub fn busybox(root: &Path) {
    for dir in ["bin", "etc", "tmp", "var"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
    let applets = [
        "sh", "true", "false", "sleep", "cat", "echo", "id", "ls", "kill", "stty", "env", "pwd", "dd", "head", "tail",
        "mount", "umount", "mknod", "grep", "unshare", "readlink", "wc", "tty", "hostname", "touch", "yes", "seq",
        "find",
    ];
    for applet in applets {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:1001:\nlogs:x:1002:web\n").unwrap();
    fs::create_dir_all(root.join("dev")).unwrap();
    fs::create_dir_all(root.join("proc")).unwrap();
    fs::create_dir_all(root.join("sys")).unwrap();
}

pub fn config(dir: &Path, instance: &str) -> Config {
    Config {
        run_dir: dir.join("run"),
        instance: instance.into(),
        program: env!("CARGO_BIN_EXE_runtime-helper").into(),
        args: vec![],
        backend: Backend::default(),
    }
}

impl Bench {
    pub async fn new() -> Self {
        // `RAST_TEST_BACKEND=/usr/bin/crun` runs every test with crun.
        let chosen = std::env::var_os("RAST_TEST_BACKEND").map(|crun| Backend::Crun(crun.into()));
        Self::with(chosen.unwrap_or_default()).await
    }

    pub async fn with(backend: Backend) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let instance = format!("rt{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        busybox(&dir.path().join("image"));
        let keeper = Keeper::start(Config { backend: backend.clone(), ..config(dir.path(), &instance) }).await.unwrap();
        let sandbox =
            SandboxSpec { id: "pod".into(), hostname: "pod-0".into(), cgroup: "pod".into(), ..SandboxSpec::default() };
        keeper.make_sandbox(&sandbox).await.unwrap();
        Self { dir, instance, backend, keeper }
    }

    /// A second `rast` that takes over.
    pub async fn reconnect(&mut self) {
        let config = Config { backend: self.backend.clone(), ..config(self.dir.path(), &self.instance) };
        self.keeper = Keeper::start(config).await.unwrap();
    }

    pub fn spec(&self, id: &str, args: &[&str]) -> ContainerSpec {
        let dir = self.dir.path();
        ContainerSpec {
            id: id.into(),
            sandbox: "pod".into(),
            rootfs: Rootfs {
                lower: vec![dir.join("image")],
                upper: dir.join("layers").join(id).join("upper"),
                work: dir.join("layers").join(id).join("work"),
            },
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            user: User { spec: "0".into(), ..User::default() },
            security: Security {
                capabilities: CAPABILITIES.iter().map(|c| (*c).to_owned()).collect(),
                no_new_privileges: true,
                ..Security::default()
            },
            log: dir.join("logs").join(format!("{id}.log")),
            ..ContainerSpec::default()
        }
    }

    pub fn sh(&self, id: &str, script: &str) -> ContainerSpec {
        self.spec(id, &["sh", "-c", script])
    }

    /// Starts and waits for the end.
    pub async fn run(&self, spec: &ContainerSpec) -> Exit {
        let mut events = self.keeper.events();
        let id = self.keeper.start(spec).await.unwrap_or_else(|e| panic!("{e}: {e:?}")).spec.id;
        loop {
            match tokio::time::timeout(Duration::from_secs(60), events.recv()).await.expect("no exit").unwrap() {
                Event::Exited { id: ended, exit } if ended == id => return exit,
                _ => {}
            }
        }
    }

    /// Runs a script and gives its output, which the log has.
    pub async fn output(&self, id: &str, script: &str) -> String {
        self.output_of(&self.sh(id, script)).await
    }

    pub async fn output_of(&self, spec: &ContainerSpec) -> String {
        self.run(spec).await;
        self.log(&spec.id)
    }

    /// The content of a log, without times and tags.
    pub fn log(&self, id: &str) -> String {
        let text = fs::read_to_string(self.log_path(id)).unwrap();
        text.lines()
            .map(|line| {
                let mut fields = line.splitn(4, ' ');
                let tag = fields.nth(2).unwrap();
                format!("{}{}", fields.next().unwrap(), if tag == "F" { "\n" } else { "" })
            })
            .collect()
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.dir.path().join("logs").join(format!("{id}.log"))
    }

    pub async fn exec(&self, id: &str, args: &[&str]) -> (String, String, Exit) {
        let spec = ExecSpec { args: args.iter().map(|a| (*a).to_owned()).collect(), ..ExecSpec::default() };
        let mut process = self.keeper.exec(id, &spec).await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        process.stdout.read_to_string(&mut out).await.unwrap();
        process.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
        (out, err, process.wait.await.unwrap())
    }

    pub async fn find(&self, id: &str) -> Option<Container> {
        self.keeper.list().await.unwrap().into_iter().find(|c| c.spec.id == id)
    }

    pub fn helper_pid(&self) -> i32 {
        helper_pid(&self.dir.path().join("run"))
    }

    /// Removes everything and checks that nothing is left.
    pub async fn close(self) {
        self.keeper.remove_sandbox("pod").await.unwrap();
        let run = self.dir.path().join("run");
        let pid = helper_pid(&run);
        until("the helper to have no leftovers", || cgroups(&self.instance).len() <= hierarchies()).await;
        self.keeper.stop().await.unwrap();
        until("the helper to end", || !Path::new(&format!("/proc/{pid}")).exists()).await;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(run.to_str().unwrap()), "{mounts}");
        assert_eq!(cgroups(&self.instance), Vec::<PathBuf>::new());
        assert_eq!(fs::read_dir(run.join("containers")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(run.join("netns")).unwrap().count(), 0);
    }
}

/// Waits for a condition; bounded.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for {what}");
}

/// The process that holds the lock of a run directory.
pub fn helper_pid(run: &Path) -> i32 {
    let run = run.to_str().unwrap();
    let holds = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let parent: Option<i32> = fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|s| s.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok());
        let parent_line = parent.and_then(|p| fs::read(format!("/proc/{p}/cmdline")).ok()).unwrap_or_default();
        line.contains(run) && line.contains("--instance") && !String::from_utf8_lossy(&parent_line).contains(run)
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.into_iter().find(holds).expect("no helper")
}

/// The cgroup directories of an instance.
pub fn cgroups(instance: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let roots = mounts.lines().filter(|l| l.contains(" - cgroup")).map(|l| l.split(' ').nth(4).unwrap());
    let mut found = vec![];
    for root in roots {
        let mut stack = vec![Path::new(root).join(instance)];
        while let Some(dir) = stack.pop() {
            if dir.is_dir() {
                stack.extend(fs::read_dir(&dir).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir()));
                found.push(dir);
            }
        }
    }
    found
}

/// How many hierarchies an instance's own level is in.
pub fn hierarchies() -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|l| l.contains(" - cgroup ")).count().max(1)
}

pub fn pid(container: &Container) -> i32 {
    match container.state {
        State::Running { pid, .. } => pid,
        ref other => panic!("not running: {other:?}"),
    }
}
