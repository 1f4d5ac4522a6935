//! Containers from start to end.

mod common;

use common::Bench;

#[tokio::test]
async fn a_container_runs_to_its_exit() {
    let bench = Bench::new().await;
    let exit = bench.run(&bench.sh("c", "echo hello; echo oops >&2; exit 7")).await;
    assert_eq!((exit.code, exit.signal, exit.oom), (Some(7), None, false));
    let log = std::fs::read_to_string(bench.log_path("c")).unwrap();
    assert!(log.contains(" stdout F hello\n") && log.contains(" stderr F oops\n"), "{log}");
    bench.close().await;
}
