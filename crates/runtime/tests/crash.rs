//! `kill -9` of either end.

mod common;

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
};

use common::{Bench, cgroups, config, helper_pid, pid, until};
use runtime::{ContainerSpec, Event, Keeper, Runtime, SandboxSpec, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

async fn resync(events: &mut tokio::sync::broadcast::Receiver<Event>) {
    let wait = async { while !matches!(events.recv().await.unwrap(), Event::Resync) {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.expect("no resync");
}

#[tokio::test]
async fn a_new_client_finds_what_the_old_one_started() {
    let mut bench = Bench::new().await;
    let spec = bench.sh("c", "while :; do echo tick; sleep 0.02; done");
    let container = bench.keeper.start(&spec).await.unwrap();
    bench.reconnect().await;
    assert_eq!(bench.find("c").await.unwrap(), container);
    assert_eq!(bench.keeper.sandboxes().await.unwrap().len(), 1);
    let len = fs::metadata(bench.log_path("c")).unwrap().len();
    until("the log to grow", || fs::metadata(bench.log_path("c")).unwrap().len() > len).await;
    bench.close().await;
}

#[tokio::test]
async fn containers_outlive_the_helper_and_keep_their_exit_code() {
    let bench = Bench::new().await;
    let mut events = bench.keeper.events();
    let script = "trap 'echo bye; exit 42' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.005; done";
    let started = bench.keeper.start(&bench.sh("c", script)).await.unwrap();
    until("some output", || fs::metadata(bench.log_path("c")).unwrap().len() > 500).await;
    kill(bench.helper_pid());
    resync(&mut events).await;
    assert_eq!(bench.find("c").await.unwrap(), started);
    let len = fs::metadata(bench.log_path("c")).unwrap().len();
    until("the log to grow", || fs::metadata(bench.log_path("c")).unwrap().len() > len + 500).await;
    let (out, _, _) = bench.exec("c", &["echo", "exec works"]).await;
    assert_eq!(out, "exec works\n");
    bench.keeper.kill("c", libc::SIGTERM).await.unwrap();
    let Event::Exited { exit, .. } = events.recv().await.unwrap() else { panic!() };
    assert_eq!((exit.code, exit.signal), (Some(42), None), "the kernel still tells");
    let log = bench.log("c");
    let numbers: Vec<u32> = log.lines().filter_map(|l| l.parse().ok()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u32).collect::<Vec<_>>(), "every line, once, in order");
    assert!(log.ends_with("bye\n"));
    bench.close().await;
}

#[tokio::test]
async fn each_line_is_logged_once_however_often_the_helper_is_killed() {
    let bench = Bench::new().await;
    let mut events = bench.keeper.events();
    let count = "i=0; while [ ! -e /tmp/stop ]; do seq $i $((i + 999)); i=$((i + 1000)); done";
    bench.keeper.start(&bench.sh("c", &format!("({count}) & ({count}) >&2; wait"))).await.unwrap();
    let length = || fs::metadata(bench.log_path("c")).unwrap().len();
    for _ in 0..20 {
        let before = length();
        until("the log to grow", || length() > before).await;
        kill(bench.helper_pid());
        resync(&mut events).await;
    }
    bench.exec("c", &["touch", "/tmp/stop"]).await;
    while !matches!(events.recv().await.unwrap(), Event::Exited { .. }) {}
    let log = fs::read_to_string(bench.log_path("c")).unwrap();
    for stream in [" stdout F ", " stderr F "] {
        let lines = log.lines().filter_map(|line| Some(line.split_once(stream)?.1.parse::<usize>().unwrap()));
        let (mut count, mut wrong) = (0, None);
        for line in lines {
            wrong = wrong.or((line != count).then_some((count, line)));
            count += 1;
        }
        assert_eq!((wrong, count % 1000), (None, 0), "{stream}: of {count} lines the first wrong one, and what it is");
    }
    bench.close().await;
}

#[tokio::test]
async fn an_end_that_nobody_saw_is_unknown() {
    let mut bench = Bench::new().await;
    let container = bench.keeper.start(&bench.sh("c", "echo last words; sleep 1000")).await.unwrap();
    until("the words", || fs::read_to_string(bench.log_path("c")).unwrap().contains("words")).await;
    let run = bench.dir.path().join("run");
    let (helper, first) = (helper_pid(&run), pid(&container));
    // With its client gone nobody replaces the helper; stopped, it cannot see the end.
    let elsewhere = bench.dir.path().join("elsewhere");
    bench.keeper = Keeper::start(config(&elsewhere, &format!("{}-b", bench.instance))).await.unwrap();
    let stop = nix::sys::signal::Signal::SIGSTOP;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper), stop).unwrap();
    kill(first);
    until("the end", || fs::read_to_string(format!("/proc/{first}/stat")).is_ok_and(|s| s.contains(") Z "))).await;
    kill(helper);
    until("the zombie to be gone", || !std::path::Path::new(&format!("/proc/{first}")).exists()).await;
    bench.keeper.stop().await.unwrap();
    bench.reconnect().await;
    let State::Exited { exit, .. } = bench.find("c").await.unwrap().state else { panic!("still running") };
    assert_eq!((exit.code, exit.signal), (None, None), "never invented");
    bench.close().await;
}

#[tokio::test]
async fn terminals_and_inputs_survive_the_helper() {
    let bench = Bench::new().await;
    let mut events = bench.keeper.events();
    let terminal =
        ContainerSpec { terminal: true, stdin: true, ..bench.sh("t", "echo ready; read x; echo got $x; exit 3") };
    let piped = ContainerSpec { stdin: true, ..bench.sh("p", "read x; echo got $x; exit 4") };
    bench.keeper.start(&terminal).await.unwrap();
    bench.keeper.start(&piped).await.unwrap();
    until("the terminal", || fs::read_to_string(bench.log_path("t")).unwrap().contains("ready")).await;
    kill(bench.helper_pid());
    resync(&mut events).await;
    for (id, code) in [("t", 3), ("p", 4)] {
        let mut process = bench.keeper.attach(id).await.unwrap();
        process.stdin.as_mut().unwrap().write_all(b"word\n").await.unwrap();
        let mut out = String::new();
        process.stdout.read_to_string(&mut out).await.unwrap();
        assert!(out.contains("got word"), "{id}: {out}");
        assert_eq!(process.wait.await.unwrap().code, Some(code), "{id}");
        assert!(bench.log(id).contains("got word"), "{id}");
    }
    bench.close().await;
}

#[tokio::test]
async fn a_start_cut_off_leaves_nothing_or_a_running_container() {
    let bench = Bench::new().await;
    let mut events = bench.keeper.events();
    for round in 0..8 {
        let specs: Vec<_> = (0..6).map(|i| bench.spec(&format!("r{round}c{i}"), &["sleep", "1000"])).collect();
        let starts = futures::future::join_all(specs.iter().map(|spec| bench.keeper.start(spec)));
        let killer = async {
            for _ in 0..round * 300 {
                tokio::task::yield_now().await;
            }
            kill(bench.helper_pid());
        };
        let (results, ()) = tokio::join!(starts, killer);
        resync(&mut events).await;
        let listed = bench.keeper.list().await.unwrap();
        for (spec, result) in specs.iter().zip(results) {
            let found = listed.iter().find(|c| c.spec.id == spec.id);
            if result.is_ok() {
                let found = found.unwrap_or_else(|| panic!("{} was lost", spec.id));
                assert!(matches!(found.state, State::Running { .. }), "{found:?}");
            }
            if let Some(found) = found {
                assert!(!matches!(found.state, State::Creating), "{found:?}");
            }
        }
        for container in listed {
            bench.keeper.remove(&container.spec.id).await.unwrap();
        }
    }
    bench.close().await;
}

#[tokio::test]
async fn only_one_helper_serves_an_instance() {
    let bench = Bench::new().await;
    let config = config(bench.dir.path(), &bench.instance);
    let second = std::process::Command::new(&config.program)
        .arg("--dir")
        .arg(&config.run_dir)
        .args(["--instance", "x"])
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another helper"));
    bench.close().await;
}

/// A killed `rast` may just have started a helper, which has its lock and does not listen yet.
#[tokio::test]
async fn a_helper_that_does_not_listen_yet_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &format!("rt{}-early", std::process::id()));
    fs::create_dir_all(&config.run_dir).unwrap();
    let lock = fs::File::create(config.run_dir.join("helper.lock")).unwrap();
    lock.lock().unwrap();
    let log = config.run_dir.join("helper.log");
    let start = tokio::spawn(Keeper::start(config));
    let refused = || fs::read_to_string(&log).is_ok_and(|text| text.contains("another helper"));
    until("a start that fails", || refused() || start.is_finished()).await;
    drop(lock);
    start.await.unwrap().expect("it waits").stop().await.unwrap();
}

#[tokio::test]
async fn a_helper_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let error = Keeper::start(config(dir.path(), "../x")).await.err().unwrap();
    assert!(error.to_string().contains("instance"), "{error}");
}

#[tokio::test]
async fn who_writes_on_after_a_container_s_end_does_not_hold_up_the_helper() {
    let mut bench = Bench::new().await;
    let host = SandboxSpec { id: "host".into(), cgroup: "host".into(), host_pid: true, ..SandboxSpec::default() };
    bench.keeper.make_sandbox(&host).await.unwrap();
    // In the host's process namespace the first process takes nobody with it.
    let mut spec = bench.sh("c", "for writer in 1 2 3 4 5 6 7 8; do yes '' & done; exit 7");
    spec.sandbox = "host".into();
    assert_eq!(bench.run(&spec).await.code, Some(7));
    assert_eq!(bench.keeper.list().await.unwrap().len(), 1);
    let logged = fs::metadata(bench.log_path("c")).unwrap().len();
    assert!(logged < 256 << 20, "{logged} bytes of a container that ended at once");
    bench.reconnect().await;
    bench.keeper.remove_sandbox("host").await.unwrap();
    bench.close().await;
}

#[tokio::test]
async fn groups_that_a_container_made_are_its_own_and_go_with_it() {
    let bench = Bench::new().await;
    let mut events = bench.keeper.events();
    let State::Running { pid: first, .. } = bench.keeper.start(&bench.sh("c", "sleep 1000")).await.unwrap().state
    else {
        panic!("it runs");
    };
    let own: Vec<_> = cgroups(&bench.instance).into_iter().filter(|dir| dir.ends_with("pod/c")).collect();
    assert!(!own.is_empty());
    for dir in own.iter().filter(|dir| !dir.to_string_lossy().contains("cpuset")) {
        fs::create_dir(dir.join("inner")).unwrap();
        fs::write(dir.join("inner/cgroup.procs"), first.to_string()).unwrap();
    }
    kill(bench.helper_pid());
    resync(&mut events).await;
    let (_, _, exit) = bench.exec("c", &["true"]).await;
    assert_eq!(exit.code, Some(0), "it runs on");
    bench.keeper.remove("c").await.unwrap();
    bench.close().await;
}

fn send(socket: &mut UnixStream, body: &str) {
    let length = u32::try_from(body.len()).unwrap();
    socket.write_all(&[&length.to_le_bytes()[..], &[0; 4], body.as_bytes()].concat()).unwrap();
}

fn receive(socket: &mut UnixStream) -> String {
    let mut head = [0; 8];
    socket.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_le_bytes(head[..4].try_into().unwrap()) as usize];
    socket.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// The helper may be older or newer than who speaks to it; these are its bytes, not this build's types.
#[tokio::test]
async fn a_client_of_another_version_is_answered() {
    let mut bench = Bench::new().await;
    bench.keeper.start(&bench.spec("c", &["sleep", "1000"])).await.unwrap();
    let mut socket = UnixStream::connect(bench.dir.path().join("run").join(runtime::helper::SOCKET)).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let hello = receive(&mut socket);
    assert!(hello.starts_with(r#"{"version":"#) && hello.contains(r#","oldest":1,"pid":"#), "{hello}");
    send(&mut socket, r#"{"call":1,"request":{"Later":{"x":1}}}"#);
    assert_eq!(receive(&mut socket), r#"{"Reply":{"call":1,"result":{"Err":"Unknown"}}}"#);
    send(&mut socket, r#"{"call":2,"request":"List","later":1}"#);
    let list = receive(&mut socket);
    assert!(list.starts_with(r#"{"Reply":{"call":2,"result":{"Ok":{"Containers":[{"spec":{"id":"c","#), "{list}");
    send(&mut socket, r#"{"call":3,"request":{"Kill":{"id":"c","signal":9,"later":1}}}"#);
    let (first, second) = (receive(&mut socket), receive(&mut socket));
    assert!(
        [&first, &second].iter().any(|m| **m == r#"{"Reply":{"call":3,"result":{"Ok":"Done"}}}"#),
        "{first} {second}"
    );
    assert!(
        [&first, &second].iter().any(|m| m.starts_with(r#"{"Exited":{"id":"c","exit":{"code":"#)),
        "{first} {second}"
    );
    drop(socket);
    bench.reconnect().await;
    bench.close().await;
}

/// Starts a keeper on a helper that says hello, then answers every call with `answer`; gives the error, and what was
/// asked of the helper.
async fn adopt(hello: &'static str, answer: &'static str) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let listener = UnixListener::bind(run.join(runtime::helper::SOCKET)).unwrap();
    let helper = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        send(&mut socket, hello);
        let mut heard = vec![];
        let mut head = [0; 8];
        while socket.read_exact(&mut head).is_ok() {
            let mut body = vec![0; u32::from_le_bytes(head[..4].try_into().unwrap()) as usize];
            socket.read_exact(&mut body).unwrap();
            heard.extend(body);
            send(&mut socket, answer);
        }
        String::from_utf8(heard).unwrap()
    });
    let start = Keeper::start(config(dir.path(), "rtfuture"));
    let start = tokio::time::timeout(std::time::Duration::from_secs(20), start).await.expect("no answer");
    let Err(error) = start else { panic!("it was adopted") };
    (error.to_string(), helper.join().unwrap())
}

#[tokio::test]
async fn a_helper_of_the_future_is_left_alone() {
    let (error, heard) = adopt(r#"{"version":9,"oldest":9,"pid":7}"#, "").await;
    assert!(error.contains("pid 7 speaks protocol 9..=9"), "{error}");
    assert_eq!(heard, "", "nothing is asked of it");
}

#[tokio::test]
async fn an_answer_that_is_not_understood_is_not_waited_for() {
    let answer = r#"{"Reply":{"call":1,"result":{"Ok":{"Containers":[{"later":1}]}}}}"#;
    let (error, heard) = adopt(r#"{"version":2,"oldest":1,"pid":7}"#, answer).await;
    assert!(error.contains("not understood"), "{error}");
    assert!(heard.contains("List"), "{heard}");
}
