//! What runs: words, directory, image, ports, streams.

use std::{io::Read as _, net::TcpStream, process::Stdio};

use serde_json::json;
use tests::{eventually, registry};

use crate::{Place, free_port, image, pod, script};

#[test]
fn words() {
    let place = Place::up();
    let main = json!({"name": "main", "image": image(), "workingDir": "/bin",
        "command": ["sh", "-c", "echo $0 $1; pwd"], "args": ["one", "two"]});
    let absent = json!({"name": "main", "image": format!("{}/busybox-zstd:1", registry()), "imagePullPolicy": "Never",
        "command": ["true"]});
    place.apply(vec![
        pod("words", vec![main, script("second", "echo second", json!({}))], json!({})),
        pod("never", vec![absent], json!({})),
    ]);
    assert_eq!(place.wrote("words", "main"), "one two\n/bin\n");
    assert_eq!(place.wrote("words", "second"), "second\n");
    place.until("pod/never", ".status.containerStatuses[0].state.waiting.reason", "ErrImageNeverPull");
}

#[test]
fn ports() {
    let place = Place::up();
    let node = place.read("nodes", ".items[0].status.addresses[?(@.type==\"InternalIP\")].address");
    let (port, both) = (free_port(), free_port());
    let serve = |name: &str, port: serde_json::Value| {
        pod(
            name,
            vec![script(
                "main",
                "hostname > /index.html; exec httpd -f -p 8080 -h /",
                json!({"ports": [port],
            "readinessProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 1}}),
            )],
            json!({}),
        )
    };
    place.apply(vec![
        serve("one", json!({"name": "web", "containerPort": 8080, "hostPort": port, "hostIP": node})),
        serve("two", json!({"name": "web", "containerPort": 8080, "hostPort": port, "hostIP": "203.0.113.9"})),
        serve("tcp", json!({"name": "web", "containerPort": 8080, "hostPort": both})),
        pod(
            "udp",
            vec![script(
                "main",
                "exec sleep 1000",
                json!({"ports": [{"containerPort": 8080, "hostPort": both, "protocol": "UDP"}]}),
            )],
            json!({}),
        ),
    ]);
    for name in ["one", "two", "tcp", "udp"] {
        place.until_ready(name);
    }
    let page = |address: (&str, u16)| -> std::io::Result<String> {
        use std::io::Write as _;
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    assert!(page((&node, port)).expect("the port of the host").ends_with("one\n"));
    assert!(page((&node, both)).expect("the port of the host").ends_with("tcp\n"));
}

#[test]
fn streams() {
    let place = Place::up();
    let asks = "read line; echo got $line; read more || echo end";
    let keeps = "read line; echo got $line; read more; echo got $more";
    place.apply(vec![
        pod("once", vec![script("main", asks, json!({"stdin": true, "stdinOnce": true}))], json!({})),
        pod("open", vec![script("main", keeps, json!({"stdin": true}))], json!({})),
        pod("tty", vec![script("main", "test -t 1 && echo terminal", json!({"tty": true}))], json!({})),
        pod(
            "message",
            vec![
                script("file", "echo -n said > /note", json!({"terminationMessagePath": "/note"})),
                script("log", "echo last; exit 3", json!({"terminationMessagePolicy": "FallbackToLogsOnError"})),
            ],
            json!({}),
        ),
    ]);
    // In the background: without stdinOnce this attach would not end.
    let attach = |name: &str, line: &str| {
        place.until_ready(name);
        let mut child = place.kubectl.command(&["attach", "-i", name]);
        let mut child =
            child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kubectl");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), line.as_bytes()).expect("kubectl reads");
        child
    };
    let mut once = attach("once", "hello\n");
    assert_eq!(place.wrote("once", "main"), "got hello\nend\n");
    once.wait().expect("kubectl ends");
    place.until_ready("open");
    let mut child = place.kubectl.command(&["attach", "-i", "open"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kubectl");
    std::io::Write::write_all(child.stdin.as_mut().expect("piped"), b"first\n").expect("kubectl reads");
    eventually("the first line was read", || {
        let log = place.kubectl.ok(&["logs", "open"]);
        if log == "got first\n" { Ok(()) } else { Err(log) }
    });
    child.kill().and_then(|()| child.wait()).expect("kubectl ends");
    let mut open = attach("open", "second\n");
    assert_eq!(place.wrote("open", "main"), "got first\ngot second\n");
    open.wait().expect("kubectl ends");
    assert_eq!(place.wrote("tty", "main").trim_end(), "terminal");
    place.until("pod/message", ".status.phase", "Failed");
    let said = ".status.containerStatuses[*].state.terminated.message";
    assert_eq!(place.read("pod/message", said).trim_end(), "said last");
}
