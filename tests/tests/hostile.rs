//! Hosts that run out of something, and containers that take all they can get.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::resource::{Resource, setrlimit},
    unistd::mkdir,
};
use serde_json::{Value, json};
use tests::{
    Instance, Relay, eventually,
    pods::{config_map, container, documents, pod},
    registry,
};

/// What a registry that is out of order says.
fn out_of_order() -> String {
    let body = r#"{"errors":[{"code":"UNAVAILABLE","message":"the shelves are being moved"}]}"#;
    let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn waiting(instance: &Instance, name: &str, reasons: &[&str]) -> Value {
    eventually("it waits", || {
        let pod = instance.get(&format!("pod/{name}"));
        let state = container(&pod)["state"]["waiting"].clone();
        let as_wanted = state["reason"].as_str().is_some_and(|reason| reasons.contains(&reason));
        if as_wanted { Ok(state) } else { Err(pod["status"].to_string()) }
    })
}

#[test]
fn a_registry_out_of_order_is_quoted_and_tried_again() {
    let mut instance = Instance::up();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let mut late = pod("late", "sleep 1000");
    late["spec"]["containers"][0]["image"] = json!(format!("{address}/busybox:1"));

    let relay = Relay::default();
    relay.answer(Some(out_of_order()));
    relay.listen(listener);
    instance.apply(&[late.clone()]);
    let state = waiting(&instance, "late", &["ErrImagePull", "ImagePullBackOff"]);
    assert!(state["message"].as_str().is_some_and(|m| m.contains("the shelves are being moved")), "{state}");
    let why = instance.rast().ok(&["why", "pod/late"]);
    for part in [&*address, "the shelves are being moved"] {
        assert!(why.contains(part), "{part:?} is not in:\n{why}");
    }
    waiting(&instance, "late", &["ImagePullBackOff"]);

    relay.answer(None);
    let pod = instance.ready("late");
    assert_eq!(container(&pod)["restartCount"], 0);

    // What is here is enough, but for one who wants it asked for each time. The old connections end with rast.
    relay.answer(Some(out_of_order()));
    instance.kill();
    instance.start();
    let mut always = late.clone();
    always["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    for (pod, name) in [(&mut late, "here"), (&mut always, "always")] {
        pod["metadata"]["name"] = json!(name);
    }
    instance.apply(&[late, always]);
    instance.ready("here");
    waiting(&instance, "always", &["ErrImagePull", "ImagePullBackOff"]);
    relay.answer(None);
    instance.ready("always");
}

#[test]
fn a_registry_that_nobody_serves_is_named() {
    let instance = Instance::up();
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").to_string()
    };
    let mut late = pod("late", "sleep 1000");
    late["spec"]["containers"][0]["image"] = json!(format!("{address}/busybox:1"));
    instance.apply(&[late]);
    waiting(&instance, "late", &["ErrImagePull", "ImagePullBackOff"]);
    let why = instance.rast().ok(&["why", "pod/late"]);
    for part in [&*address, "refused"] {
        assert!(why.to_lowercase().contains(part), "{part:?} is not in:\n{why}");
    }
}

/// A small disk, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    fn at(place: &Path, size: &str) -> Self {
        let _there_already = mkdir(place, nix::sys::stat::Mode::S_IRWXU);
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(size)).expect("tmpfs mounts");
        Self(place.to_owned())
    }

    /// Takes all room there is; gives the file that takes it.
    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut file = fs::File::create(&filler).expect("a file");
        for size in [1 << 16, 1] {
            let zeros = vec![0; size];
            while file.write_all(&zeros).is_ok() {}
        }
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).expect("it can be unmounted");
        let _kept_by_its_owner = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_disk_is_named_and_survived() {
    let mut instance = Instance::prepared();
    let disk = Disk::at(&instance.root().join("var"), "size=96m");
    instance.start();
    instance.apply(&[pod("before", "while :; do echo tick; sleep 0.1; done"), config_map("before")]);
    let before = instance.ready("before");

    let filler = disk.fill();
    // The store has a little room written ahead: each try is another change, or it would be none.
    let mut tries = 0;
    let refusal = eventually("a write is refused", || {
        tries += 1;
        let mut big = config_map("big");
        big["data"]["key"] = json!(format!("{tries} ").repeat(100 << 10));
        let answer = instance.rast().input(big.to_string()).run(&["apply", "-f", "-"]);
        if answer.code == 0 { Err("accepted".to_owned()) } else { Ok(answer) }
    });
    assert_eq!(refusal.code, 1, "{}", refusal.err);
    assert!(refusal.err.to_lowercase().contains("the disk is full"), "{}", refusal.err);
    assert_eq!(instance.get("configmap/before")["data"]["key"], "before");
    assert_eq!(instance.rast().ok(&["exec", "before", "--", "echo", "here"]), "here\n");

    fs::remove_file(filler).expect("the filler goes");
    eventually("writes are taken again", || {
        let answer = instance.rast().input(config_map("after").to_string()).run(&["apply", "-f", "-"]);
        if answer.code == 0 { Ok(()) } else { Err(answer.err) }
    });
    instance.apply(&[pod("after", "sleep 1000")]);
    instance.ready("after");
    assert_eq!(container(&instance.ready("before"))["containerID"], container(&before)["containerID"]);
    drop(instance);
    drop(disk);
}

fn page(address: &str) -> String {
    let mut stream = TcpStream::connect((address, 8080)).expect("the neighbour accepts");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("it answers");
    page
}

#[test]
fn containers_that_take_all_are_contained() {
    let mut instance = Instance::prepared();
    let config = instance.root().join("etc/rastos/config.yaml");
    fs::create_dir_all(config.parent().expect("a directory")).expect("it can be made");
    fs::write(&config, "maxProcesses: 50\n").expect("it can be written");
    instance.start();

    let mut neighbour = pod("neighbour", "");
    neighbour["spec"]["containers"][0] = json!({"name": "main", "image": format!("{}/web:1", registry())});
    let forks = pod("forks", "(while :; do sleep 1000 & done); exec sleep 1000");
    let mut hog = pod("hog", "tail /dev/zero");
    hog["spec"]["restartPolicy"] = json!("Never");
    hog["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
    instance.apply(&[neighbour, forks, hog]);

    let address = instance.ready("neighbour")["status"]["podIP"].as_str().expect("an address").to_owned();
    let end = eventually("the hog is killed", || {
        let pod = instance.get("pod/hog");
        let end = container(&pod)["state"]["terminated"].clone();
        if end.is_object() { Ok(end) } else { Err(pod["status"].to_string()) }
    });
    assert_eq!((&end["reason"], &end["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{end}");
    assert!(instance.rast().ok(&["why", "hog"]).contains("memory"));

    let uid = instance.get("pod/forks")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let groups = tests::host::cgroups(&instance.helper().instance);
    let pids = groups.iter().find(|group| group.join("pids.max").exists() && group.ends_with(format!("pod{uid}")));
    let number = |file: &str| -> String {
        fs::read_to_string(pids.expect("the pod's group").join(file)).expect("it can be read").trim().to_owned()
    };
    assert_eq!(number("pids.max"), "50");
    eventually("it meets its limit", || {
        let log = instance.rast().ok(&["logs", "forks"]);
        if log.contains("can't fork") { Ok(()) } else { Err(format!("{} processes: {log}", number("pids.current"))) }
    });
    assert!(number("pids.current").parse::<u32>().expect("a number") > 40);
    assert!(page(&address).contains("It works"));
}

#[test]
fn what_a_pod_may_not_ask_of_the_host_is_refused_and_recorded() {
    let instance = Instance::up();
    let (privileged, network, path) = ("privileged", "host-network", "host-path");
    let mut pods = [privileged, network, path].map(|name| pod(name, "true"));
    pods[0]["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    pods[1]["spec"]["hostNetwork"] = json!(true);
    pods[2]["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}]);
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
        let said = instance.rast().input(documents(&[pod])).fails(5, &["apply", "-f", "-"]);
        assert!(said.contains("PodSecurity"), "{name}: {said}");
        eventually(&format!("the refusal of {name} is in the audit log"), || {
            let log =
                fs::read_to_string(instance.root().join("var/log/rastos/audit.log")).map_err(|e| e.to_string())?;
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let ours = |e: &Value| e["objectRef"]["name"] == name.as_str() && e["responseStatus"]["code"] == 403;
            events.filter(ours).map(|_| ()).next().ok_or_else(|| "not there".to_owned())
        });
    }
}

/// Connections on which nothing is asked: one too many for a host is closed at once, another host has room, and so has
/// the first when it lets go.
#[test]
fn a_host_that_takes_all_its_connections_shuts_out_no_other() {
    const FILES: u64 = 512;
    // Half of the files are for connections, a quarter of those for one host.
    const OF_ONE_HOST: usize = 64;
    setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).expect("fewer files");
    let instance = Instance::up();
    let node = instance.get("nodes");
    let addresses = node["items"][0]["status"]["addresses"].as_array().expect("addresses");
    let here = addresses.iter().find(|address| address["type"] == "InternalIP").expect("its own");
    let here = here["address"].as_str().expect("an address");
    let connect = || TcpStream::connect((here, instance.port()));
    let held = eventually("one too many is closed", || {
        let held: Vec<TcpStream> = (0..OF_ONE_HOST).map(|_| connect().expect("it listens")).collect();
        let mut more = connect().expect("it listens");
        more.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a timeout");
        match more.read(&mut [0]) {
            Ok(0) => Ok(held),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(held),
            other => Err(format!("{other:?}")),
        }
    });
    instance.kubectl("1.36").ok(&["get", "nodes"]);
    assert!(instance.said().contains("too many connections"), "{}", instance.said());
    drop(held);
    let server = format!("https://{here}:{}", instance.port());
    let answer = ["get", "nodes", "--server", &server, "--tls-server-name", "127.0.0.1"];
    eventually("the host is served again", || {
        let answer = instance.kubectl("1.36").run(&answer);
        if answer.code == 0 { Ok(()) } else { Err(answer.err) }
    });
}
