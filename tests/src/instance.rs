//! An instance of the real program, with everything below a root of its own.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::Client;

/// A running `rast up`. Dropping it runs `rast down --purge`, which must leave nothing.
pub struct Instance {
    root: TempDir,
    port: u16,
    pods: String,
    child: Option<Child>,
}

impl Instance {
    /// Starts an instance and waits until its API and its node are ready.
    pub fn up() -> Self {
        let mut instance = Self::prepared();
        instance.start();
        instance
    }

    /// An instance that is not started yet.
    pub fn prepared() -> Self {
        let root = tempfile::Builder::new().prefix("rast-").tempdir_in("/tmp").expect("a directory for the instance");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let [high, low] = port.to_be_bytes();
        Self { root, port, pods: format!("10.{high}.{low}.0/24"), child: None }
    }

    /// Gives its pods addresses from another range, before it starts.
    pub fn pods_from(&mut self, range: String) {
        self.pods = range;
    }

    /// Starts it (again) and waits until it says that it is ready.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).expect("the log file");
        let mut child = self.command().stdout(Stdio::piped()).stderr(log).spawn().expect("rast starts");
        let said = BufReader::new(child.stdout.take().expect("piped")).lines().next();
        self.child = Some(child);
        match said {
            Some(Ok(line)) if line.starts_with("rastOS is ready") => {}
            other => panic!("rast up said {other:?}:\n{}", self.said()),
        }
    }

    /// `rast up` on this root, not yet started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.args(["up", "--root"]).arg(self.root.path());
        command.args(["--api-port", &self.port.to_string(), "--pod-range", &self.pods]);
        command.args(["--log", "info"]).stdin(Stdio::null());
        command
    }

    /// Kills `rast up` at once, as a power cut to it alone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().expect("it ends");
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Its API's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its pods get their addresses from.
    pub fn pod_range(&self) -> &str {
        &self.pods
    }

    /// Its administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.path().join("etc/rastos/kubeconfig.yaml")
    }

    /// What it has logged.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.root.path().join("rast.log")
    }

    /// Our command line, on this instance.
    pub fn rast(&self) -> Client {
        Client::new(program()).env("RAST_ROOT", self.root.path().display().to_string())
    }

    /// kubectl of a version that `make setup` fetched: `1.20` or `1.36`.
    pub fn kubectl(&self, version: &str) -> Client {
        let cache = self.root.path().join("kubectl-cache").display().to_string();
        self.outside(&format!("kubectl-{version}")).arg("--cache-dir").arg(cache)
    }

    /// An outside program of `make setup`, told where the API is by `KUBECONFIG`.
    pub fn outside(&self, name: &str) -> Client {
        let tools = std::env::var("RAST_TOOLS").expect("RAST_TOOLS is set by the Makefile");
        let bin = if name == "python" { "venv/bin" } else { "bin" };
        Client::new(Path::new(&tools).join(bin).join(name))
            .env("KUBECONFIG", self.kubeconfig().display().to_string())
            .env("HOME", self.root.path().display().to_string())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let down = self.rast().run(&["down", "--purge"]);
        if let Some(mut child) = self.child.take() {
            let _ended_by_down = child.kill();
            let _reaped = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the instance said:\n{}", self.said());
        } else {
            assert_eq!(down.code, 0, "rast down --purge: {}{}", down.out, down.err);
        }
    }
}

/// The `rast` under test.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("RAST_PROGRAM") {
        return path.into();
    }
    // target/PROFILE/deps/TEST -> target/PROFILE/rast
    let test = std::env::current_exe().expect("a test has a path");
    test.ancestors().nth(2).expect("target/PROFILE/deps").join("rast")
}
