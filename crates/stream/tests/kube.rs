//! Exec, attach and port-forward with the Rust client: WebSocket, protocols v5 and v4.

mod common;

use common::*;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api, Client, Config,
    api::{AttachParams, AttachedProcess, TerminalSize},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

async fn pods(node: &Node) -> Api<Pod> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = Config::new(format!("http://{}", node.address).parse().unwrap());
    Api::namespaced(Client::try_from(config).unwrap(), "default")
}

async fn status(process: &mut AttachedProcess) -> Status {
    timeout(PATIENCE, process.take_status().unwrap()).await.unwrap().unwrap()
}

async fn all(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut text = String::new();
    timeout(PATIENCE, stream.unwrap().read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_exit_code() {
    let node = Node::start().await;
    let command = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    let mut process = pods(&node).await.exec("p", command, &AttachParams::default()).await.unwrap();
    let (stdout, stderr) = (process.stdout(), process.stderr());
    assert_eq!(all(stdout).await, "out\n");
    assert_eq!(all(stderr).await, "err\n");
    let status = status(&mut process).await;
    assert_eq!((status.status.as_deref(), status.reason.as_deref()), (Some("Failure"), Some("NonZeroExitCode")));
    assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("3"));
    assert_eq!(node.event().await, "websocket v5.channel.k8s.io, v4.channel.k8s.io");
    assert_eq!(node.event().await, "exited 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_run_says_why() {
    let node = Node::start().await;
    let mut process = pods(&node).await.exec("p", ["/no/such"], &AttachParams::default()).await.unwrap();
    let status = status(&mut process).await;
    assert!(status.message.unwrap().starts_with("/no/such: "));
}

/// More than every buffer on the way, and the end of input on top.
#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_there_and_back() {
    let node = Node::start().await;
    let params = AttachParams::default().stdin(true).stderr(false);
    let mut process = pods(&node).await.exec("p", ["cat"], &params).await.unwrap();
    let sent = noise(10 << 20);
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    let write = async {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
    };
    let mut received = Vec::new();
    let read = stdout.read_to_end(&mut received);
    let ((), read) = timeout(PATIENCE, async { tokio::join!(write, read) }).await.unwrap();
    read.unwrap();
    assert_eq!(received.len(), sent.len());
    assert!(received == sent);
    assert_eq!(status(&mut process).await.status.as_deref(), Some("Success"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_s_size() {
    let node = Node::start().await;
    let params = AttachParams::interactive_tty();
    let mut process = pods(&node).await.exec("p", ["sizes"], &params).await.unwrap();
    let mut sizes = process.terminal_size().unwrap();
    sizes.try_send(TerminalSize { width: 100, height: 40 }).unwrap();
    assert_eq!(all(process.stdout()).await, "100x40\r\n");
    assert!(process.stderr().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn attach() {
    let node = Node::start().await;
    let params = AttachParams::default().stdin(true);
    let mut process = pods(&node).await.attach("p", &params).await.unwrap();
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    timeout(PATIENCE, process.stdout().unwrap().read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_ends_everything() {
    let node = Node::start().await;
    let params = AttachParams::default().stdin(true);
    let process = pods(&node).await.exec("p", ["cat"], &params).await.unwrap();
    node.event().await;
    process.abort();
    drop(process);
    assert_eq!(node.event().await, "exited 0", "cat ends when its input does");

    let process = pods(&node).await.exec("p", ["nothing"], &params).await.unwrap();
    node.event().await;
    drop(process);
    assert_eq!(node.event().await, "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_waited_for() {
    let node = Node::start().await;
    let process = pods(&node).await.exec("p", ["flood"], &AttachParams::default()).await.unwrap();
    node.event().await;
    let stalled = node.event().await;
    let written: usize = stalled.strip_prefix("stalled at ").unwrap().parse().unwrap();
    // What the sockets of both ends take is the kernel's affair.
    assert!(written < 16 << 20, "{stalled}");
    drop(process);
    assert_eq!(node.event().await, "then Err(BrokenPipe)");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_by_channels() {
    let node = Node::start().await;
    let (one, two) = (echo().await, echo().await);
    let mut forwarder = pods(&node).await.portforward("p", &[one, two]).await.unwrap();
    let sent = noise(300_000);
    for port in [one, two] {
        let mut stream = forwarder.take_stream(port).unwrap();
        let mut received = vec![0; sent.len()];
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let both = async { tokio::try_join!(write.write_all(&sent), read.read_exact(&mut received)) };
        timeout(PATIENCE, both).await.unwrap().unwrap();
        assert!(received == sent);
    }
    assert_eq!(node.event().await, "websocket v5.channel.k8s.io, v4.channel.k8s.io");
    drop(forwarder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_nobody_listens_on() {
    let node = Node::start().await;
    let mut forwarder = pods(&node).await.portforward("p", &[1]).await.unwrap();
    let error = timeout(PATIENCE, forwarder.take_error(1).unwrap()).await.unwrap().unwrap();
    assert!(error.starts_with("nobody there"), "{error}");
}
