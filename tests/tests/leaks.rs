//! `rast down` leaves the host as it was before `rast up`.
//!
//! The host is a network and a mount namespace of the test's own, so that nothing else changes in it meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use serde_json::json;
use tests::{
    Instance, Relay, eventually,
    host::{cgroups, end, mounts_below, processes},
    registry,
};

const NODE: &str = "192.0.2.10";
const HOST_PORT: u16 = 8090;

/// A host of this thread's own, and of the programs that it starts: an uplink, and a firewall like Docker's.
fn own_host() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("the test runs as root");
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("private mounts");
    for other in mounts_below(Path::new("/tmp")).iter().rev() {
        umount2(other, MntFlags::MNT_DETACH).expect("other tests' mounts");
    }
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), nothing).expect("an own /run");
    for command in [
        "ip link set lo up",
        "ip link add up0 type veth peer name up1",
        "ip link set up0 addrgenmode none",
        "ip link set up1 addrgenmode none",
        "ip addr add 192.0.2.10/24 dev up0",
        "ip link set up0 up",
        "ip link set up1 up",
        "ip route add default via 192.0.2.1",
        "iptables -P FORWARD DROP",
    ] {
        output(command);
    }
}

fn output(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().expect("a program")).args(words).output().expect(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All of the host that an instance may touch, line by line.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot(BTreeMap<&'static str, BTreeSet<String>>);

impl Snapshot {
    fn take(instance: &Instance, name: &str) -> Self {
        let lines = |text: String| text.lines().map(|line| line.trim_end().to_owned()).collect::<BTreeSet<_>>();
        let pods = instance.pod_range().trim_end_matches("0/24");
        let root = instance.root().display().to_string();
        let mut all = BTreeMap::from([
            ("links", lines(output("ip -o link"))),
            ("addresses", lines(output("ip -o addr"))),
            ("routes", lines(output("ip route show table all"))),
            ("IPv6 routes", lines(output("ip -6 route show table all"))),
            ("rules", lines(output("ip rule"))),
            ("packet filter", lines(output("nft --stateless list ruleset"))),
            ("iptables", lines(output("iptables-save")).into_iter().filter_map(|l| rule(&l)).collect()),
            ("mounts", lines(fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo"))),
            ("cgroups", cgroups(name).iter().map(|group| group.display().to_string()).collect()),
        ]);
        let tracked = lines(output("conntrack -L")).into_iter().filter(|line| line.contains(pods));
        all.insert("connections", tracked.collect());
        let own = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|l| text(&l).contains(&root));
        all.insert("processes", processes().iter().filter(|pid| own(pid)).map(i32::to_string).collect());
        let mut files = BTreeSet::new();
        for dir in ["/run", "/etc/cni", "/var/lib/cni", "/opt/cni", "/etc/rastos", "/var/lib/rastos", "/var/log/pods"] {
            walk(Path::new(dir), &mut |path| files.extend([path.display().to_string()]));
        }
        all.insert("files", files);
        let mut switches = BTreeSet::new();
        walk(Path::new("/proc/sys/net"), &mut |path| {
            let value = fs::read_to_string(path).unwrap_or_default();
            if path.is_file() && !path.ends_with("nf_conntrack_count") {
                switches.insert(format!("{}={}", path.display(), value.trim()));
            }
        });
        all.insert("sysctls", switches);
        Self(all)
    }

    /// What there is more (+) or less (-) than in another.
    fn beyond(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (what, lines) in &self.0 {
            let before = &other.0[what];
            found.extend(lines.difference(before).map(|line| format!("{what}: + {line}")));
            found.extend(before.difference(lines).map(|line| format!("{what}: - {line}")));
        }
        found
    }
}

/// A rule without its counters.
fn rule(line: &str) -> Option<String> {
    (!line.starts_with('#')).then(|| line.split(" [").next().unwrap_or_default().to_owned())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn walk(path: &Path, seen: &mut impl FnMut(&Path)) {
    if let Ok(entries) = fs::read_dir(path) {
        entries.flatten().for_each(|entry| walk(&entry.path(), seen));
    }
    if path.symlink_metadata().is_ok() {
        seen(path);
    }
}

fn page() -> Result<String, String> {
    let mut page = String::new();
    let mut stream = TcpStream::connect((NODE, HOST_PORT)).map_err(|e| e.to_string())?;
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .and_then(|()| stream.read_to_string(&mut page))
        .map_err(|e| e.to_string())?;
    if page.contains("It works") { Ok(page) } else { Err(page) }
}

/// A Deployment whose pod has a host port, a volume and a way out; ready and used.
fn run_pods(instance: &Instance) {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}],
                    "containers": [{
                        "name": "main", "image": format!("{}/web:1", registry()),
                        "ports": [{"containerPort": 8080, "hostPort": HOST_PORT}],
                        "volumeMounts": [{"name": "memory", "mountPath": "/memory"}],
                    }],
                },
            },
        },
    });
    instance.apply(&[deployment]);
    instance.rast().ok(&["wait", "--for", "condition=Available", "deployment/web", "--timeout", "60"]);
    eventually("the host port answers", page);
    let port = instance.port().to_string();
    instance.rast().ok(&["exec", "deployment/web", "--", "sh", "-c", &format!("nc {NODE} {port} </dev/null")]);
}

#[test]
fn down_leaves_the_host_as_it_was() {
    let relay = Relay::default();
    own_host();
    relay.listen(TcpListener::bind(registry()).expect("the registry's address is free here"));
    let mut instance = Instance::prepared();
    let before = Snapshot::take(&instance, "unknown yet");

    instance.start();
    run_pods(&instance);
    let helper = instance.helper();
    let running = Snapshot::take(&instance, &helper.instance);
    let seen: BTreeSet<String> =
        running.beyond(&before).iter().filter_map(|l| Some(l.split_once(':')?.0.to_owned())).collect();
    for what in
        ["links", "routes", "packet filter", "iptables", "mounts", "cgroups", "connections", "processes", "sysctls"]
    {
        assert!(seen.contains(what), "the comparison is blind to {what}: {seen:?}");
    }

    instance.kill();
    end(helper.pid);
    instance.rast().ok(&["down"]);
    let after = Snapshot::take(&instance, &helper.instance);
    assert_eq!(after.beyond(&before), [""; 0], "after kill -9 of rast and of the helper");
    assert!(instance.root().join("var/lib/rastos").exists(), "the state is gone");

    instance.start();
    assert!(!instance.get("deployment/web").is_null(), "what was acknowledged is kept");
    run_pods(&instance);
    instance.rast().ok(&["down", "--purge"]);
    instance.wait();
    let after = Snapshot::take(&instance, &helper.instance);
    assert_eq!(after.beyond(&before), [""; 0], "after down --purge");
    let mut left = Vec::new();
    walk(instance.root(), &mut |path| left.extend(path.is_file().then(|| path.to_owned())));
    assert_eq!(left, [instance.root().join("rast.log")]);
}
