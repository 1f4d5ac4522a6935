//! A project in the test cloud, and proxies between the client and the cloud's services.

mod http;
mod proxies;

use std::{
    env, fs,
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tempfile::TempDir;

use proxies::Proxies;
pub use proxies::{Fault, When};

use crate::{Client, program};

/// How long a machine may take to take a connection; a port that is not open says nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keystone, as the cloud's clouds.yaml gives it.
const KEYSTONE: (&str, u16) = ("172.24.4.2:5000", 5000);
/// Which of the client's settings leads to which service; Cinder's own client adds no version.
const SERVICES: [(&str, u16, &str); 5] = [
    ("compute", 8774, ""),
    ("network", 9696, ""),
    ("block_storage", 8776, "/v3"),
    ("image", 9292, ""),
    ("orchestration", 8004, ""),
];

/// A project of its own. Dropping it deletes it with whatever a failed test left in it.
pub struct Project {
    devcloud: PathBuf,
    name: String,
    home: TempDir,
    proxies: Arc<Proxies>,
}

impl Project {
    /// Makes a project in the cloud whose program `RAST_CLOUD` names, and enters the cloud's network with this thread.
    pub fn new(name: &str) -> Self {
        Self::with(name, &[])
    }

    /// The same with quotas, rights taken and services hidden, as `devcloud project` takes them.
    pub fn with(name: &str, settings: &[&str]) -> Self {
        let devcloud = devcloud();
        let name = format!("{name}-{}", std::process::id());
        let made = Command::new(&devcloud).args(["project", &name]).args(settings).output().expect("devcloud runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let home = tempfile::Builder::new().prefix("rast-cloud-").tempdir_in("/tmp").expect("a directory");
        let space = env::var("RAST_DEVCLOUD_NS").unwrap_or_else(|_| "rastcloud".into());
        let space = File::open(format!("/run/netns/{space}")).expect("the cloud's network");
        setns(space, CloneFlags::CLONE_NEWNET).expect("enter the cloud's network");
        let proxies = Arc::<Proxies>::default();
        let mut clouds = String::from_utf8(made.stdout).expect("a clouds.yaml");
        clouds = clouds.replace(KEYSTONE.0, &proxies.before(KEYSTONE.1).to_string());
        let hidden = settings.iter().filter_map(|s| s.strip_prefix("hide=")).flat_map(|s| s.split(','));
        let hidden: Vec<&str> = hidden.collect();
        for (service, port, version) in SERVICES.into_iter().filter(|(service, ..)| !hidden.contains(service)) {
            clouds += &format!("    {service}_endpoint_override: http://{}{version}\n", proxies.before(port));
        }
        fs::write(home.path().join("clouds.yaml"), clouds).expect("write clouds.yaml");
        Self { devcloud, name, home, proxies }
    }

    /// A directory of its own.
    pub fn dir(&self) -> String {
        self.home.path().display().to_string()
    }

    /// Writes a file; its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, text).expect("write a file");
        path.display().to_string()
    }

    /// The cloud's own small guest as a file, with bytes that no other image has; its path.
    pub fn guest(&self, name: &str) -> String {
        let state = env::var("RAST_DEVCLOUD").unwrap_or_else(|_| "/var/lib/rast-devcloud".into());
        let mut bytes = fs::read(Path::new(&state).join("guest/guest.qcow2")).expect("the guest's image");
        bytes.extend_from_slice(self.name.as_bytes());
        let path = self.home.path().join(name);
        fs::write(&path, bytes).expect("write a file");
        path.display().to_string()
    }

    /// Runs `rast cloud` to its end.
    pub fn rast(&self, args: &[&str]) -> Output {
        self.proxies.series(None);
        self.meets(args).expect("nobody kills it")
    }

    /// From now on requests meet a fault, until the next run without.
    pub fn faults(&self, fault: Fault, when: When) {
        let path = self.home.path().join("clouds.yaml");
        let clouds = fs::read_to_string(&path).expect("clouds.yaml");
        if let Some(seconds) = fault.patience().filter(|_| !clouds.contains("api_timeout")) {
            fs::write(&path, format!("{clouds}    api_timeout: {seconds}\n")).expect("write clouds.yaml");
        }
        self.proxies.series(Some((fault, when)));
    }

    /// How many different requests have met the fault.
    pub fn met(&self) -> usize {
        self.proxies.series(None)
    }

    /// Runs `rast cloud`, whose requests meet the fault. `None`: it was killed.
    pub fn meets(&self, args: &[&str]) -> Option<Output> {
        let (out, err) = (self.home.path().join("out"), self.home.path().join("err"));
        let child = self
            .laptop(self.home.path())
            .arg("cloud")
            .command(args)
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file"))
            .stderr(File::create(&err).expect("a file"))
            .spawn()
            .expect("rast runs");
        self.proxies.begin(child);
        let status = loop {
            let ended = self.proxies.client().as_mut().expect("it was started").try_wait().expect("it is ours");
            if let Some(status) = ended {
                break status;
            }
            crate::pause();
        };
        let read = |path| fs::read(path).expect("its output");
        let output = Output { status, stdout: read(out), stderr: read(err) };
        (status.code().is_some()).then_some(output)
    }

    /// `rast` on a laptop whose home is `home`: another one than the project's own knows nothing of its keys.
    pub fn laptop(&self, home: &Path) -> Client {
        Client::new(program())
            .env("OS_CLIENT_CONFIG_FILE", self.home.path().join("clouds.yaml").display().to_string())
            .env("OS_CLOUD", &self.name)
            .env("XDG_CONFIG_HOME", home.display().to_string())
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
        printed(&mut self.client(args))
    }

    /// Runs OpenStack's own client, which must fail; what it said.
    pub fn openstack_fails(&self, args: &[&str]) -> String {
        let output = self.client(args).output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!output.status.success(), "openstack {args:?}: {said}");
        said
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut client = Command::new(&self.devcloud);
        client.args(["in", "openstack", "--os-cloud", &self.name]).args(args);
        client.env("OS_CLIENT_CONFIG_FILE", self.home.path().join("clouds.yaml"));
        client
    }

    /// Changes the project's quotas, as `devcloud project` takes them.
    pub fn quotas(&self, quotas: &[&str]) {
        printed(Command::new(&self.devcloud).args(["quota", &self.name]).args(quotas));
    }

    /// Makes an application credential; the name of a cloud that is used with it.
    pub fn credential(&self, sort: &str) -> String {
        let name = format!("{}-{sort}", self.name);
        let flag = format!("--{sort}");
        let made = self.openstack(&["application", "credential", "create", &name, &flag, "-f", "json"]);
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let text = |key: &str| made[key].as_str().expect("a credential").to_owned();
        let path = self.home.path().join("clouds.yaml");
        let clouds = fs::read_to_string(&path).expect("clouds.yaml");
        let address = clouds.lines().find(|l| l.contains("auth_url:")).expect("Keystone's address").trim();
        let endpoints: String =
            clouds.lines().filter(|l| l.contains("_endpoint_override")).map(|l| format!("{l}\n")).collect();
        let (id, secret) = (text("id"), text("secret"));
        let entry = format!(
            "  {name}:\n    region_name: RegionOne\n    auth_type: v3applicationcredential\n    auth:\n      {address}\n      \
             application_credential_id: {id}\n      application_credential_secret: {secret}\n{endpoints}"
        );
        fs::write(&path, clouds + &entry).expect("write clouds.yaml");
        name
    }

    /// What the project holds, as kinds and names, in order.
    pub fn inventory(&self) -> Vec<String> {
        let output = self.rast(&["inventory", "-o", "json"]);
        let inventory: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let items = inventory["items"].as_array().expect("a list").iter();
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let mut items: Vec<_> = items.map(|i| format!("{}: {}", text(i, "kind"), text(i, "name"))).collect();
        items.sort();
        items
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _reported_by_the_next_run = Command::new(&self.devcloud).args(["project-delete", &self.name]).output();
    }
}

/// The page of the test app at a machine's port 80, if it is one.
pub fn page(address: &str) -> Result<String, String> {
    let mut page = String::new();
    let mut read = || -> std::io::Result<()> {
        let at = SocketAddr::new(address.parse().map_err(std::io::Error::other)?, 80);
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.read_to_string(&mut page).map(drop)
    };
    read().map_err(|e| e.to_string())?;
    if page.contains("It works") { Ok(page) } else { Err(page) }
}

fn devcloud() -> PathBuf {
    env::var("RAST_CLOUD").expect("RAST_CLOUD names scripts/devcloud/devcloud; see scripts/test-openstack").into()
}

/// Does what the cloud's operators would.
fn operate(args: &[&str]) {
    printed(Command::new(devcloud()).args(args));
}

/// Lets Keystone allow trusts to application credentials, or not, from now on.
pub fn credentials_make_trusts(allowed: bool) {
    operate(&["stop", "keystone"]);
    printed(Command::new(devcloud()).arg("up").env("RAST_DEVCLOUD_CREDENTIAL_TRUSTS", allowed.to_string()));
}

fn printed(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
