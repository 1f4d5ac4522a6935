//! Probes and hooks, watched from both ends.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tests::eventually;

use crate::{Place, pod, script, with};

/// Answers every HTTP request with 200 and tells of it: its first line, and the header `X-Asked`.
fn server() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (tell, told) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines: Vec<String> =
                BufReader::new(&stream).lines().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
            let asked = lines.iter().find(|l| l.to_lowercase().starts_with("x-asked:")).cloned().unwrap_or_default();
            let _reader_gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if tell.send(format!("{} {asked}", lines.first().cloned().unwrap_or_default())).is_err() {
                return;
            }
        }
    });
    (port, told)
}

fn probed(name: &str, text: &str, probe: &str, what: Value) -> Value {
    pod(name, vec![script("main", text, json!({probe: what}))], json!({"restartPolicy": "Always"}))
}

fn exec(text: &str) -> Value {
    json!({"command": ["sh", "-c", text]})
}

const LONG: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

#[test]
fn kinds() {
    let place = Place::up();
    let (port, told) = server();
    let health = tests::health_server("shop");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let tcp = silent.local_addr().expect("bound").port();
    let quick = |kind: &str, what: Value| json!({kind: what, "periodSeconds": 1});
    place.apply(vec![
        probed("gate", LONG, "readinessProbe", quick("exec", exec("test -e /go"))),
        probed(
            "http",
            LONG,
            "readinessProbe",
            quick(
                "httpGet",
                json!({"host": "127.0.0.1", "port": port, "path": "/healthy",
            "httpHeaders": [{"name": "X-Asked", "value": "kindly"}]}),
            ),
        ),
        probed(
            "https",
            LONG,
            "readinessProbe",
            quick(
                "httpGet",
                json!({"host": "127.0.0.1", "port": place.instance.port(), "path": "/readyz", "scheme": "HTTPS"}),
            ),
        ),
        probed("tcp", LONG, "readinessProbe", quick("tcpSocket", json!({"host": "127.0.0.1", "port": tcp}))),
        probed(
            "start",
            LONG,
            "startupProbe",
            json!({"exec": exec("test -e /go"), "periodSeconds": 1, "failureThreshold": 99}),
        ),
        probed("mute", LONG, "readinessProbe", quick("grpc", json!({"port": 9}))),
        probed("closed", LONG, "readinessProbe", quick("tcpSocket", json!({"host": "127.0.0.1", "port": 9}))),
        probed(
            "lost",
            LONG,
            "readinessProbe",
            quick(
                "httpGet",
                json!({"port": place.instance.port(),
            "host": "127.0.0.1", "path": "/api/v1/pods", "scheme": "HTTPS"}),
            ),
        ),
        probed("hangs", LONG, "readinessProbe", quick("exec", exec("sleep 1000"))),
        on_the_host(probed("grpc", LONG, "readinessProbe", quick("grpc", json!({"port": health, "service": "shop"})))),
    ]);
    for pod in ["http", "https", "tcp", "grpc"] {
        place.until_ready(pod);
    }
    let asked = told.recv_timeout(Duration::from_secs(30)).expect("it was asked").to_lowercase();
    assert_eq!(asked, "get /healthy http/1.1 x-asked: kindly");
    place.told("Readiness probe failed: command");
    place.told("Startup probe failed: command");
    place.told("Readiness probe failed: dial tcp 127.0.0.1:9: ");
    place.told("Readiness probe failed: HTTP probe failed with statuscode: 401");
    place.told("Readiness probe failed: timed out after 1s");
    place.told("Readiness probe failed: dial 10.");
    for pod in ["mute", "closed", "lost", "hangs"] {
        let ready = place.read(&format!("pod/{pod}"), ".status.conditions[?(@.type==\"Ready\")].status");
        assert_eq!(ready, "False", "{pod}");
    }
    for pod in ["gate", "start"] {
        place.kubectl.ok(&["exec", pod, "--", "touch", "/go"]);
        place.until_ready(pod);
    }
    silent.set_nonblocking(true).expect("a socket");
    assert!(silent.accept().is_ok(), "the probe came");
}

#[test]
fn numbers() {
    let place = Place::up();
    let shared = json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]});
    // Both write down when they start; `look` lives longer than `main`.
    let counted = |name: &str, probe: Value| {
        let text = "echo start $(date +%s) >> /d/log; trap '' TERM; while :; do sleep 0.1; done";
        let main = script("main", text, with(shared.clone(), json!({"livenessProbe": probe})));
        let more = json!({"restartPolicy": "Always", "volumes": [{"name": "d", "emptyDir": {}}]});
        pod(name, vec![main, script("look", LONG, shared.clone())], more)
    };
    // A probe that a busy machine makes time out would count without a line in the log.
    let fail = exec("echo probe $(date +%s) >> /d/log; exit 1");
    place.apply(vec![
        counted(
            "threshold",
            json!({"exec": fail, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 20,
                   "terminationGracePeriodSeconds": 1}),
        ),
        counted(
            "delay",
            json!({"exec": fail, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 20,
                                "initialDelaySeconds": 4}),
        ),
        with_grace(
            counted(
                "grace",
                json!({"exec": fail, "periodSeconds": 1, "failureThreshold": 1,
            "terminationGracePeriodSeconds": 1}),
            ),
            3000,
        ),
        probed(
            "slow",
            LONG,
            "readinessProbe",
            json!({"exec": exec("sleep 2"), "timeoutSeconds": 20, "periodSeconds": 1}),
        ),
        probed(
            "often",
            LONG,
            "readinessProbe",
            json!({"exec": exec("date -u +%Y-%m-%dT%H:%M:%SZ >> /n"), "successThreshold": 6, "periodSeconds": 1}),
        ),
    ]);
    place.until_ready("often");
    let ready = place.read("pod/often", ".status.conditions[?(@.type==\"Ready\")].lastTransitionTime");
    let probes = place.kubectl.ok(&["exec", "often", "--", "cat", "/n"]);
    let sixth = probes.lines().nth(5).unwrap_or_else(|| panic!("ready at {ready} after {probes}"));
    assert!(sixth <= &*ready, "ready at {ready}, before the sixth probe of {probes}");
    place.until_ready("slow");
    eventually("it is started again in spite of its pod's long grace", || {
        let count = place.read("pod/grace", ".status.containerStatuses[?(@.name==\"main\")].restartCount");
        if count != "0" && !count.is_empty() { Ok(()) } else { Err(count) }
    });
    // What stands in the log up to the second start: the first start and the probes after it.
    let first_run = |name: &str| {
        eventually("a second start", || {
            let log = place.kubectl.run(&["exec", name, "-c", "look", "--", "cat", "/d/log"]).out;
            let entries = log.lines().filter_map(|line| line.split_once(' '));
            let entries: Vec<(&str, i64)> = entries.map(|(what, at)| (what, at.parse().expect("seconds"))).collect();
            match entries.iter().skip(1).position(|(what, _)| *what == "start") {
                Some(probes) => Ok(entries[..=probes].iter().map(|(_, at)| *at).collect::<Vec<i64>>()),
                None => Err(log),
            }
        })
    };
    let [start, first, second] = first_run("delay")[..] else { panic!("two failures are enough") };
    assert!(first - start >= 3, "first probe {} s after the start", first - start);
    assert!(second - first <= 5, "second probe {} s after the first", second - first);
    assert_eq!(first_run("threshold").len(), 1 + 2, "two failures are enough");
    place.told("Container main failed liveness probe");
}

/// With the host's address, where a test can answer.
fn on_the_host(mut pod: Value) -> Value {
    pod["spec"]["hostNetwork"] = json!(true);
    pod
}

fn with_grace(mut pod: Value, seconds: u32) -> Value {
    pod["spec"]["terminationGracePeriodSeconds"] = json!(seconds);
    pod
}

#[test]
fn hooks() {
    let place = Place::up();
    let (port, told) = server();
    let get = |path: &str| json!({"httpGet": {"host": "127.0.0.1", "port": port, "path": path}});
    let hooked = |name: &str, lifecycle: Value| {
        with_grace(pod(name, vec![script("main", LONG, json!({"lifecycle": lifecycle}))], json!({})), 60)
    };
    place.apply(vec![
        hooked("web", json!({"postStart": get("/hello"), "preStop": get("/bye")})),
        hooked("file", json!({"postStart": {"exec": exec("touch /hooked")}, "preStop": {"sleep": {"seconds": 4}}})),
    ]);
    let fails = json!({"postStart": {"exec": exec("echo not today; exit 1")}});
    place.apply(vec![pod("refused", vec![script("main", "exec sleep 1000", json!({"lifecycle": fails}))], json!({}))]);
    place.until("pod/refused", ".status.phase", "Failed");
    place.told("Container main failed its postStart hook: ");
    let why = place.instance.rast().arg("-n").arg("fields").ok(&["why", "refused"]);
    assert!(why.contains("its postStart hook failed") && why.contains("not today"), "{why}");

    place.until_ready("web");
    place.until_ready("file");
    assert!(told.try_recv().expect("postStart came before ready").starts_with("GET /hello "));
    place.kubectl.ok(&["exec", "file", "--", "test", "-e", "/hooked"]);
    place.kubectl.ok(&["delete", "pod", "web", "--timeout=30s"]);
    assert!(told.try_recv().expect("preStop came before the end").starts_with("GET /bye "));
    let asked = std::time::Instant::now();
    place.kubectl.ok(&["delete", "pod", "file", "--timeout=30s"]);
    assert!(asked.elapsed().as_secs() >= 4, "preStop slept");
}
