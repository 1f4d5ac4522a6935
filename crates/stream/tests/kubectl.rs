//! The judges: Debian's kubectl 1.20 (SPDY) and kubectl 1.36 (WebSocket, SPDY tunnelled in a WebSocket), from
//! `make setup`.

mod common;

use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

use common::*;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
    time::timeout,
};

const VERSIONS: [(&str, &str); 2] = [("1.20", "SPDY/3.1 v4.channel.k8s.io"), ("1.36", "websocket v5.channel.k8s.io")];

fn program(version: &str) -> PathBuf {
    let tools = std::env::var_os("RAST_TOOLS").map(PathBuf::from);
    let tools = tools.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools").into());
    let program = tools.join("bin").join(format!("kubectl-{version}"));
    assert!(program.exists(), "{} is missing: run `make setup`", program.display());
    program
}

fn kubectl(version: &str, node: &Node, home: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut kubectl = Command::new(program(version));
    kubectl
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", "/usr/bin:/bin")
        .args(["--server", &format!("http://{}", node.address)])
        .args(arguments)
        .kill_on_drop(true);
    kubectl
}

async fn run(version: &str, node: &Node, arguments: &[&str], input: &[u8]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut child = kubectl(version, node, &home, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    tokio::spawn(async move { stdin.write_all(&input).await });
    timeout(PATIENCE, child.wait_with_output()).await.expect("kubectl ends").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_exit_code() {
    for (version, speaks) in VERSIONS {
        let node = Node::start().await;
        let said = run(version, &node, &["exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], b"").await;
        assert_eq!(String::from_utf8_lossy(&said.stdout), "out\n", "{version}: {said:?}");
        let errors = String::from_utf8_lossy(&said.stderr);
        assert!(errors.starts_with("err\n") && errors.contains("exit code 3"), "{version}: {errors}");
        assert_eq!(said.status.code(), Some(3), "{version}");
        assert!(node.event().await.starts_with(speaks), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_there_and_back() {
    let sent = noise(10 << 20);
    for (version, _) in VERSIONS {
        let node = Node::start().await;
        let said = run(version, &node, &["exec", "-i", "p", "--", "cat"], &sent).await;
        assert!(said.status.success(), "{version}: {}", String::from_utf8_lossy(&said.stderr));
        assert_eq!(said.stdout.len(), sent.len(), "{version}");
        assert!(said.stdout == sent, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_run_says_why() {
    for (version, _) in VERSIONS {
        let node = Node::start().await;
        let said = run(version, &node, &["exec", "p", "--", "/no/such"], b"").await;
        let errors = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && errors.contains("/no/such: "), "{version}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_s_size() {
    for (version, _) in VERSIONS {
        let node = Node::start().await;
        let home = tempfile::tempdir().unwrap();
        let command = format!(
            "stty cols 100 rows 40; exec {} --server http://{} exec -it p -- sizes",
            program(version).display(),
            node.address
        );
        let script = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env("HOME", home.path())
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let said = timeout(PATIENCE, script).await.expect("it ends").unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(text.contains("100x40"), "{version}: {text}");
        assert!(said.status.success(), "{version}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports() {
    let sent = noise(1 << 20);
    for (version, speaks) in
        [("1.20", "SPDY/3.1 portforward.k8s.io"), ("1.36", "websocket SPDY/3.1+portforward.k8s.io")]
    {
        let node = Node::start().await;
        let home = tempfile::tempdir().unwrap();
        let port = echo().await;
        let mapping = format!(":{port}");
        let arguments = ["port-forward", "p", mapping.as_str(), ":1", "--address", "127.0.0.1"];
        let mut child = kubectl(version, &node, &home, &arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut local = Vec::new();
        while local.len() < 2 {
            let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("a line");
            let from = line.strip_prefix("Forwarding from 127.0.0.1:").unwrap_or_else(|| panic!("{version}: {line}"));
            local.push(from.split(' ').next().unwrap().parse::<u16>().unwrap());
        }
        // Several at a time, each to its end.
        let once = |sent: Vec<u8>| {
            let at = local[0];
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(("127.0.0.1", at)).await.unwrap();
                let (mut read, mut write) = stream.split();
                let mut received = Vec::new();
                let write = async {
                    write.write_all(&sent).await?;
                    write.shutdown().await
                };
                tokio::try_join!(write, read.read_to_end(&mut received)).unwrap();
                assert_eq!(received.len(), sent.len());
                assert!(received == sent);
            })
        };
        for task in [once(sent.clone()), once(sent.clone()), once(b"x".to_vec())] {
            timeout(PATIENCE, task).await.expect(version).expect(version);
        }
        // A port that nobody listens on: the connection ends, and kubectl says why.
        let mut stream = TcpStream::connect(("127.0.0.1", local[1])).await.unwrap();
        let mut nothing = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut nothing)).await.expect(version).ok();
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = timeout(PATIENCE, errors.next_line()).await.expect(version).unwrap().unwrap_or_default();
        assert!(line.contains("nobody there"), "{version}: {line}");
        assert!(node.event().await.starts_with(speaks), "{version}");
        child.kill().await.unwrap();
        assert_eq!(node.event().await, "gone", "{version}");
    }
}
