//! A host of its own for each test: a fresh network namespace, so that nothing of the machine is touched and two
//! tests never meet. Pods and the outside world are further namespaces; all go with the test's thread.

#![allow(dead_code)]

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use network::{Config, HostPort, Network, Protocol, Request, Routed};
use nix::sched::{CloneFlags, setns, unshare};

/// Longer than any packet takes on this machine, shorter than a test may hang.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a dropped packet is waited for.
pub const BRIEFLY: Duration = Duration::from_millis(300);

pub const NODE: &str = "192.0.2.1";
pub const WORLD: &str = "192.0.2.2";

/// Runs a test on a host of its own with a link to the outside world.
pub fn host(test: impl AsyncFnOnce(Namespace)) {
    unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
    // A new namespace takes this from the machine's, where other instances may forward.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    ip("link set lo up");
    let world = Namespace::new();
    ip(&format!("link add up0 type veth peer name eth0 netns {}", world.path().display()));
    // Nothing of the kernel's own that changes by itself.
    ip("link set up0 addrgenmode none");
    ip(&format!("addr add {NODE}/24 dev up0"));
    ip("link set up0 up");
    world.within(|| {
        ip("link set lo up");
        ip(&format!("addr add {WORLD}/24 dev eth0"));
        ip("link set eth0 up");
    });
    // The carrier is noticed a moment later.
    while !run("ip", "-o link show up0").contains("state UP") || run("ip", "route").contains("linkdown") {}
    // Threads of this runtime are made by this thread, so they are on the same host.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test(world));
}

/// A network namespace without a process.
pub struct Namespace(File);

impl Namespace {
    pub fn new() -> Self {
        let made = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        };
        Self(thread::spawn(made).join().unwrap().unwrap())
    }

    /// The host's own.
    pub fn here() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Runs something inside.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = || {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(inside).join().unwrap()
        })
    }

    /// Tells each who connects to the port their own address, until the process ends.
    pub fn serve(&self, at: &str) {
        let listener = self.within(|| TcpListener::bind(at).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream);
            }
        });
    }

    /// The address under which a server sees us.
    pub fn ask(&self, at: &str) -> io::Result<String> {
        self.within(|| ask(at))
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?.ip();
    stream.write_all(peer.to_string().as_bytes())
}

pub fn ask(at: &str) -> io::Result<String> {
    let at: SocketAddr = at.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    Ok(told)
}

pub fn config(dir: &Path, instance: &str, range: &str) -> Config {
    Config {
        instance: instance.into(),
        state_dir: dir.join("network"),
        pod_ranges: vec![range.parse().unwrap()],
        unmasqueraded: vec![],
        closed_ports: vec![10250],
        mtu: None,
    }
}

pub async fn open(dir: &Path) -> Routed {
    Routed::open(config(dir, "t", "10.77.0.0/16")).await.unwrap()
}

pub fn request(id: &str, pod: &Namespace, ports: &[HostPort]) -> Request {
    Request { id: id.into(), netns: pod.path(), host_ports: ports.to_vec() }
}

pub fn tcp(host: u16, pod: u16) -> HostPort {
    HostPort { address: IpAddr::from([0, 0, 0, 0]), host, pod, protocol: Protocol::Tcp }
}

/// A new pod and its address.
pub async fn pod(network: &Routed, id: &str, ports: &[HostPort]) -> (Namespace, IpAddr) {
    let pod = Namespace::new();
    let attachment = network.attach(&request(id, &pod, ports)).await.unwrap();
    (pod, attachment.addresses[0])
}

pub fn ip(arguments: &str) {
    run("ip", arguments);
}

pub fn run(tool: &str, arguments: &str) -> String {
    let output = Command::new(tool).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{tool} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All that an instance may change on the host, line by line.
pub fn host_state() -> BTreeSet<String> {
    let keys = "-a --pattern ^net\\.(ipv4\\.(ip_forward|conf)|ipv6\\.conf)";
    let views = [
        ("ip", "-o link"),
        ("ip", "-o -4 route show table all"),
        ("ip", "-o -6 route show table all"),
        ("ip", "-o addr"),
        ("ip", "neigh show nud permanent"),
        ("nft", "list ruleset"),
        ("iptables", "-S"),
        ("conntrack", "-L"),
        ("sysctl", keys),
    ];
    let lines =
        |(tool, arguments): (&str, &str)| run(tool, arguments).lines().map(|l| format!("{tool}: {l}")).collect();
    views.into_iter().flat_map(|view: (&str, &str)| -> Vec<String> { lines(view) }).collect()
}

/// Compares with what was before.
pub fn assert_as_before(before: &BTreeSet<String>) {
    let now = host_state();
    let changed: Vec<_> = before.symmetric_difference(&now).collect();
    assert!(changed.is_empty(), "{changed:#?}");
}
