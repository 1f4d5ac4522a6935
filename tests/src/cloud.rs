//! A project in the test cloud, and proxies between the client and the cloud's services.

use std::{
    collections::BTreeSet,
    env, fs,
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tempfile::TempDir;

/// Where the APIs are in the test cloud's network, and which of the client's settings leads there.
const HOST: &str = "172.24.4.2";
const SERVICES: [(&str, u16); 5] =
    [("compute", 8774), ("network", 9696), ("block_storage", 8776), ("image", 9292), ("orchestration", 8004)];

/// A project of its own. Dropping it deletes it with whatever a failed test left in it.
pub struct Project {
    devcloud: PathBuf,
    name: String,
    home: TempDir,
    proxies: Arc<Proxies>,
}

/// What the proxies do: they count the requests that are no GET, and kill the client at one of them.
#[derive(Default)]
struct Proxies {
    seen: AtomicUsize,
    kill_after: AtomicUsize,
    client: Mutex<Option<Child>>,
}

impl Project {
    /// Makes a project in the cloud whose program `RAST_CLOUD` names, and enters the cloud's network with this thread.
    pub fn new(name: &str) -> Self {
        let devcloud = PathBuf::from(
            env::var("RAST_CLOUD").expect("RAST_CLOUD names scripts/devcloud/devcloud; see scripts/test-openstack"),
        );
        let name = format!("{name}-{}", std::process::id());
        let made = Command::new(&devcloud).args(["project", &name]).output().expect("devcloud runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let home = tempfile::Builder::new().prefix("rast-cloud-").tempdir_in("/tmp").expect("a directory");
        let space = env::var("RAST_DEVCLOUD_NS").unwrap_or_else(|_| "rastcloud".into());
        let space = File::open(format!("/run/netns/{space}")).expect("the cloud's network");
        setns(space, CloneFlags::CLONE_NEWNET).expect("enter the cloud's network");
        let proxies = Arc::<Proxies>::default();
        let mut clouds = String::from_utf8(made.stdout).expect("a clouds.yaml");
        for (service, port) in SERVICES {
            clouds += &format!("    {service}_endpoint_override: http://{}\n", proxies.clone().before(port));
        }
        fs::write(home.path().join("clouds.yaml"), clouds).expect("write clouds.yaml");
        Self { devcloud, name, home, proxies }
    }

    /// Writes a file; its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, text).expect("write a file");
        path.display().to_string()
    }

    /// Runs `rast cloud` to its end.
    pub fn rast(&self, args: &[&str]) -> Output {
        self.run(args, usize::MAX).expect("nobody kills it")
    }

    /// Runs `rast cloud` and kills it once `requests` requests that are no GET have been answered, before it sees the
    /// last answer. `None`: it was killed.
    pub fn killed_after(&self, requests: usize, args: &[&str]) -> Option<Output> {
        self.run(args, requests)
    }

    /// Runs `rast cloud`, which must succeed; what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.rast(args);
        assert!(output.status.success(), "rast cloud {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs kubectl from outside on a cluster; what it printed.
    pub fn kubectl(&self, cluster: &str, args: &[&str]) -> String {
        let kubeconfig = self.home.path().join("rastos").join(cluster).join("kubeconfig.yaml");
        printed(Command::new("kubectl-1.36").arg("--kubeconfig").arg(kubeconfig).args(args))
    }

    /// Runs OpenStack's own client in the project, behind rast's back.
    pub fn openstack(&self, args: &[&str]) -> String {
        let mut client = Command::new(&self.devcloud);
        client.args(["in", "openstack", "--os-cloud", &self.name]).args(args);
        printed(client.env("OS_CLIENT_CONFIG_FILE", self.home.path().join("clouds.yaml")))
    }

    /// What the project holds, as kinds and names.
    pub fn inventory(&self) -> BTreeSet<String> {
        let output = self.rast(&["inventory", "-o", "json"]);
        let inventory: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let items = inventory["items"].as_array().expect("a list").iter();
        items.map(|i| format!("{} {}", i["kind"].as_str().unwrap_or(""), i["name"].as_str().unwrap_or(""))).collect()
    }

    fn run(&self, args: &[&str], kill_after: usize) -> Option<Output> {
        let (out, err) = (self.home.path().join("out"), self.home.path().join("err"));
        self.proxies.seen.store(0, Ordering::SeqCst);
        self.proxies.kill_after.store(kill_after, Ordering::SeqCst);
        let child = Command::new(crate::instance::program())
            .arg("cloud")
            .args(args)
            .env("OS_CLIENT_CONFIG_FILE", self.home.path().join("clouds.yaml"))
            .env("XDG_CONFIG_HOME", self.home.path())
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file"))
            .stderr(File::create(&err).expect("a file"))
            .spawn()
            .expect("rast runs");
        *self.proxies.client.lock().expect("no proxy has panicked") = Some(child);
        let status = loop {
            let mut client = self.proxies.client.lock().expect("no proxy has panicked");
            if let Some(status) = client.as_mut().expect("it was started").try_wait().expect("it is ours") {
                break status;
            }
            drop(client);
            crate::pause();
        };
        let read = |path| fs::read(path).expect("its output");
        let output = Output { status, stdout: read(out), stderr: read(err) };
        (status.code().is_some()).then_some(output)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _reported_by_the_next_run = Command::new(&self.devcloud).args(["project-delete", &self.name]).output();
    }
}

impl Proxies {
    /// A proxy before the service at `port`; its address.
    fn before(self: Arc<Self>, port: u16) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let proxies = self.clone();
                thread::spawn(move || proxies.pass(client, port));
            }
        });
        address
    }

    /// Passes one request and its answer on.
    fn pass(&self, mut client: TcpStream, port: u16) -> io::Result<()> {
        let request = request(&mut client)?;
        let get = request.starts_with(b"GET ");
        let mut service = TcpStream::connect((HOST, port))?;
        service.write_all(&request)?;
        let mut answer = Vec::new();
        service.read_to_end(&mut answer)?;
        if !get && self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.kill_after.load(Ordering::SeqCst) {
            if let Some(child) = self.client.lock().expect("no test has panicked").as_mut() {
                child.kill()?;
            }
            return Ok(());
        }
        client.write_all(&answer)?;
        client.shutdown(Shutdown::Both)
    }
}

fn printed(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A whole request, made to end its connection.
fn request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        match client.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
    while bytes.len() < end + 4 + length {
        match client.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
    bytes.splice(end + 2..end + 2, *b"connection: close\r\n");
    Ok(bytes)
}
