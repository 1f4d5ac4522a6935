//! Containers from start to end.

mod common;

use std::{collections::BTreeMap, fs, time::Duration};

use common::{Bench, until};
use runtime::{ContainerSpec, Error, Event, ExecSpec, Mount, Resources, Runtime, SandboxSpec, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_container_runs_to_its_exit() {
    let bench = Bench::new().await;
    let exit = bench.run(&bench.sh("c", "echo hello; echo oops >&2; exit 7")).await;
    assert_eq!((exit.code, exit.signal, exit.oom), (Some(7), None, false));
    let log = fs::read_to_string(bench.log_path("c")).unwrap();
    assert!(log.contains(" stdout F hello\n") && log.contains(" stderr F oops\n"), "{log}");
    let time = log.split(' ').next().unwrap();
    assert!(time.len() == 30 && time.ends_with('Z'), "{time}");
    assert!(matches!(bench.find("c").await.unwrap().state, State::Exited { .. }));
    bench.keeper.remove("c").await.unwrap();
    bench.keeper.remove("c").await.unwrap();
    assert!(bench.find("c").await.is_none());
    assert!(bench.log_path("c").exists(), "the log stays");
    bench.close().await;
}

#[tokio::test]
async fn a_signal_ends_a_container() {
    let bench = Bench::new().await;
    let mut events = bench.keeper.events();
    bench.keeper.start(&bench.sh("c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done")).await.unwrap();
    until("the trap to be set", || fs::read_to_string(bench.log_path("c")).unwrap().contains("up")).await;
    bench.keeper.kill("c", libc::SIGTERM).await.unwrap();
    let Event::Exited { exit, .. } = events.recv().await.unwrap() else { panic!() };
    assert_eq!((exit.code, exit.signal), (Some(5), None));
    assert!(matches!(bench.keeper.kill("c", libc::SIGTERM).await, Err(Error::NotRunning(_))));

    bench.keeper.start(&bench.spec("d", &["sleep", "1000"])).await.unwrap();
    bench.keeper.kill("d", libc::SIGKILL).await.unwrap();
    let Event::Exited { exit, .. } = events.recv().await.unwrap() else { panic!() };
    assert_eq!((exit.code, exit.signal), (Some(137), Some(9)));
    assert!(matches!(bench.keeper.kill("nobody", 9).await, Err(Error::NotFound(_))));
    bench.close().await;
}

#[tokio::test]
async fn eating_memory_is_an_oom_kill() {
    let bench = Bench::new().await;
    let hog = ContainerSpec {
        resources: Resources { memory: Some(24 << 20), ..Resources::default() },
        ..bench.sh("c", "x=a; while :; do x=$x$x; done")
    };
    let exit = bench.run(&hog).await;
    assert!(exit.oom && exit.code == Some(137), "{exit:?}");
    bench.close().await;
}

#[tokio::test]
async fn a_fork_bomb_stays_inside() {
    let bench = Bench::new().await;
    let bomb = ContainerSpec {
        resources: Resources { pids: Some(16), ..Resources::default() },
        ..bench.sh("c", "(for i in $(seq 40); do sleep 100 & done) 2>&1; exec sleep 100")
    };
    bench.keeper.start(&bomb).await.unwrap();
    until("a refused fork", || fs::read_to_string(bench.log_path("c")).unwrap().contains("can't fork")).await;
    let stats = bench.keeper.stats("c").await.unwrap();
    assert!(stats.pids <= 16 && stats.memory > 0 && stats.cpu_ns > 0, "{stats:?}");
    bench.keeper.remove("c").await.unwrap();
    bench.close().await;
}

#[tokio::test]
async fn limits_change_while_it_runs() {
    let bench = Bench::new().await;
    bench.keeper.start(&bench.spec("c", &["sleep", "1000"])).await.unwrap();
    let dirs = common::cgroups(&bench.instance);
    let read =
        |file: &str| dirs.iter().filter(|d| d.ends_with("pod/c")).find_map(|d| fs::read_to_string(d.join(file)).ok());
    for mib in [64, 128, 32] {
        let resources = Resources { memory: Some(mib << 20), cpu_quota: Some(50_000), ..Resources::default() };
        bench.keeper.update("c", &resources).await.unwrap();
        let limit = read("memory.limit_in_bytes").or_else(|| read("memory.max")).unwrap();
        assert_eq!(limit.trim(), (mib << 20).to_string());
        if let Some(with_swap) = read("memory.memsw.limit_in_bytes") {
            assert_eq!(with_swap, limit, "nothing goes on in the swap");
        }
    }
    bench.close().await;
}

/// A kernel with cgroup v1 does not take a limit that is below what is in use; v2 does, and kills.
#[tokio::test]
async fn a_limit_that_the_kernel_refuses_frees_no_swap() {
    let bench = Bench::new().await;
    let holding = ContainerSpec {
        resources: Resources { memory: Some(64 << 20), ..Resources::default() },
        ..bench.sh("c", "held=$(head -c 16777216 /dev/zero | tr '\\0' x); echo held; sleep 1000; echo $held")
    };
    bench.keeper.start(&holding).await.unwrap();
    until("the memory is held", || fs::read_to_string(bench.log_path("c")).unwrap().contains("held")).await;
    let dirs = common::cgroups(&bench.instance);
    let read = |file: &str| {
        let with_it = dirs.iter().filter(|d| d.ends_with("pod/c")).find_map(|d| fs::read_to_string(d.join(file)).ok());
        with_it.map(|limit| limit.trim().to_owned())
    };
    if let Some(with_swap) = read("memory.memsw.limit_in_bytes") {
        assert_eq!(with_swap, (64 << 20).to_string());
        let lower = Resources { memory: Some(1 << 20), ..Resources::default() };
        bench.keeper.update("c", &lower).await.unwrap_err();
        assert_eq!(read("memory.memsw.limit_in_bytes"), Some(with_swap.clone()));
        assert_eq!(read("memory.limit_in_bytes"), Some(with_swap));
    }
    bench.close().await;
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_nothing() {
    let bench = Bench::new().await;
    let why = |result: Result<_, Error>| match result {
        Err(Error::Start { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    let missing = why(bench.keeper.start(&bench.spec("a", &["foo"])).await);
    assert_eq!(missing, r#"exec: "foo": executable file not found in $PATH"#);
    let absent = why(bench.keeper.start(&bench.spec("b", &["/bin/foo"])).await);
    assert_eq!(absent, r#"exec: "/bin/foo": no such file or directory"#);
    let denied = why(bench.keeper.start(&bench.spec("c", &["/etc/passwd"])).await);
    assert_eq!(denied, r#"exec: "/etc/passwd": permission denied"#);
    let mut nobody = bench.spec("d", &["true"]);
    nobody.user.spec = "nobody".into();
    assert!(why(bench.keeper.start(&nobody).await).contains("not in the image's /etc/passwd"));
    let mut root = bench.spec("e", &["true"]);
    root.user.must_not_be_root = true;
    assert!(matches!(bench.keeper.start(&root).await, Err(Error::RunsAsRoot { .. })));
    let mut lost = bench.spec("f", &["true"]);
    lost.rootfs.lower = vec!["/nonexistent".into()];
    bench.keeper.start(&lost).await.unwrap_err();
    let mut source = bench.spec("g", &["true"]);
    source.mounts = vec![Mount {
        source: "/nonexistent".into(),
        destination: "/mnt".into(),
        read_only: true,
        receive_propagation: false,
    }];
    why(bench.keeper.start(&source).await);
    assert_eq!(bench.keeper.list().await.unwrap(), vec![]);
    bench.close().await;
}

#[tokio::test]
async fn an_image_with_links_for_our_targets_is_refused() {
    let bench = Bench::new().await;
    for (id, link, target) in
        [("a", "dev", "/tmp"), ("b", "proc", "/tmp"), ("c", "sys", "/tmp"), ("d", "etc/resolv.conf", "/etc/passwd")]
    {
        let image = bench.dir.path().join(format!("image-{id}"));
        common::busybox(&image);
        let _ = fs::remove_dir(image.join(link));
        std::os::unix::fs::symlink(target, image.join(link)).unwrap();
        let mut spec = bench.spec(id, &["true"]);
        spec.rootfs.lower = vec![image];
        spec.mounts = vec![Mount {
            source: "/etc/hostname".into(),
            destination: "/etc/resolv.conf".into(),
            read_only: true,
            receive_propagation: false,
        }];
        match bench.keeper.start(&spec).await {
            Err(Error::Start { why, .. }) => assert!(why.contains("refused"), "{why}"),
            other => panic!("{link}: {other:?}"),
        }
    }
    bench.close().await;
}

#[tokio::test]
async fn its_world_is_as_specified() {
    let bench = Bench::new().await;
    let volume = bench.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "from outside\n").unwrap();
    let mut spec = bench.sh("c", "hostname; id; pwd; echo $GREETING $HOME; cat /data/file; touch /data/x || echo read-only; cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    spec.user.spec = "web".into();
    spec.cwd = "/srv/made/here".into();
    spec.env = vec!["GREETING=hi".into()];
    spec.mounts =
        vec![Mount { source: volume, destination: "/data".into(), read_only: true, receive_propagation: false }];
    let out = bench.output_of(&spec).await;
    let expected =
        "pod-0\nuid=1000(web) gid=1001(web) groups=1001(web),1002(logs)\n/srv/made/here\nhi /home/web\nfrom outside\n";
    assert!(out.starts_with(expected), "{out}");
    assert!(out.contains("read-only"), "{out}");
    bench.close().await;
}

#[tokio::test]
async fn containers_of_a_sandbox_share_and_keep_their_namespaces() {
    let bench = Bench::new().await;
    let spec = SandboxSpec {
        id: "own".into(),
        hostname: "own".into(),
        cgroup: "own".into(),
        sysctls: BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".into(), "80".into())]),
        ..SandboxSpec::default()
    };
    let sandbox = bench.keeper.make_sandbox(&spec).await.unwrap();
    assert_eq!(bench.keeper.make_sandbox(&spec).await.unwrap(), sandbox);
    assert_eq!(bench.keeper.sandboxes().await.unwrap().len(), 2);
    let look = "for ns in net ipc uts; do readlink /proc/self/ns/$ns; done; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; grep -c . /proc/net/dev";
    let first = bench.output_of(&ContainerSpec { sandbox: "own".into(), ..bench.sh("a", look) }).await;
    let second = bench.output_of(&ContainerSpec { sandbox: "own".into(), ..bench.sh("b", look) }).await;
    assert_eq!(first, second);
    assert!(first.contains("\n80\n"), "{first}");
    let other = bench.output("c", look).await;
    assert_ne!(first, other);
    bench.keeper.remove_sandbox("own").await.unwrap();
    bench.keeper.remove_sandbox("own").await.unwrap();
    assert!(!sandbox.netns.exists());
    let bad = SandboxSpec {
        id: "bad".into(),
        sysctls: BTreeMap::from([("kernel.core_pattern".into(), "|x".into())]),
        ..spec
    };
    assert!(matches!(bench.keeper.make_sandbox(&bad).await, Err(Error::Invalid { .. })));
    bench.close().await;
}

#[tokio::test]
async fn shared_memory_is_the_sandboxs_and_outlasts_a_container() {
    let bench = Bench::new().await;
    let ipc = SandboxSpec { id: "host".into(), cgroup: "host".into(), host_ipc: true, ..SandboxSpec::default() };
    bench.keeper.make_sandbox(&ipc).await.unwrap();
    assert_eq!(bench.output("a", "echo of a > /dev/shm/word").await, "");
    let look = "cat /dev/shm/word; grep -c ' /dev/shm .*nosuid,nodev,noexec' /proc/mounts; head -c 64m /dev/zero > /dev/shm/big || :";
    let seen = bench.output("b", look).await;
    assert!(seen.starts_with("of a\n1\n") && seen.contains("No space left"), "{seen}");
    let ours = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    let name = ours.path().display();
    let look = format!("ls /dev/shm/word || :; ls {name} || :");
    let seen = bench.output_of(&ContainerSpec { sandbox: "host".into(), ..bench.sh("c", &look) }).await;
    assert!(seen.contains("/dev/shm/word: No such") && seen.ends_with(&format!("{name}\n")), "{seen}");
    let seen = bench.output("d", &format!("ls {name} || :")).await;
    assert!(seen.contains("No such"), "{seen}");
    bench.keeper.remove_sandbox("host").await.unwrap();
    bench.close().await;
}

#[tokio::test]
async fn exec_runs_beside() {
    let bench = Bench::new().await;
    let mut spec = bench.spec("c", &["sleep", "1000"]);
    spec.user.spec = "web".into();
    bench.keeper.start(&spec).await.unwrap();
    let (out, err, exit) = bench.exec("c", &["sh", "-c", "id -u; echo bad >&2; exit 3"]).await;
    assert_eq!((out.as_str(), err.as_str(), exit.code), ("1000\n", "bad\n", Some(3)));
    let missing = bench.keeper.exec("c", &ExecSpec { args: vec!["nope".into()], ..ExecSpec::default() }).await;
    assert!(matches!(missing, Err(Error::Start { why, .. }) if why.contains("not found in $PATH")));
    let absent = bench.keeper.exec("x", &ExecSpec { args: vec!["true".into()], ..ExecSpec::default() }).await;
    assert!(matches!(absent, Err(Error::NotFound(_))));

    let spec = ExecSpec { args: vec!["cat".into()], stdin: true, ..ExecSpec::default() };
    let mut cat = bench.keeper.exec("c", &spec).await.unwrap();
    let mut stdin = cat.stdin.take().unwrap();
    stdin.write_all(b"through the pipe").await.unwrap();
    drop(stdin);
    let mut out = String::new();
    cat.stdout.read_to_string(&mut out).await.unwrap();
    assert_eq!((out.as_str(), cat.wait.await.unwrap().code), ("through the pipe", Some(0)));
    bench.close().await;
}

#[tokio::test]
async fn exec_with_a_terminal() {
    let bench = Bench::new().await;
    bench.keeper.start(&bench.spec("c", &["sleep", "1000"])).await.unwrap();
    let spec = ExecSpec {
        args: vec!["sh".into(), "-c".into(), "tty; stty size; read x; stty size; echo got $x; exit 4".into()],
        terminal: true,
        stdin: true,
        size: Some((100, 30)),
    };
    let mut shell = bench.keeper.exec("c", &spec).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("30 100") {
        let mut buf = [0; 256];
        let n = shell.stdout.read(&mut buf).await.unwrap();
        assert!(n > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
    assert!(seen.contains("/dev/pts/"), "{seen}");
    (shell.resize)(120, 40);
    shell.stdin.as_mut().unwrap().write_all(b"word\n").await.unwrap();
    shell.stdout.read_to_string(&mut seen).await.unwrap();
    assert!(seen.contains("40 120") && seen.contains("got word"), "{seen}");
    assert_eq!(shell.wait.await.unwrap().code, Some(4));
    bench.close().await;
}

#[tokio::test]
async fn an_exec_nobody_waits_for_is_killed() {
    let bench = Bench::new().await;
    bench.keeper.start(&bench.spec("c", &["sleep", "1000"])).await.unwrap();
    let spec = ExecSpec { args: vec!["sleep".into(), "2000".into()], ..ExecSpec::default() };
    drop(bench.keeper.exec("c", &spec).await.unwrap());
    for _ in 0..500 {
        if bench.keeper.stats("c").await.unwrap().pids == 1 {
            return bench.close().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still there");
}

#[tokio::test]
async fn logs_are_whole_and_rotate() {
    let bench = Bench::new().await;
    bench
        .run(&bench.sh(
            "a",
            "head -c 40000 /dev/zero | tail -c 40000 | sed y/x/x/ 2>/dev/null; yes | head -c 40000; printf end",
        ))
        .await;
    let raw = fs::read_to_string(bench.log_path("a")).unwrap();
    assert!(raw.lines().all(|l| l.len() < 17_000));
    let log = bench.log("a");
    assert_eq!(log.matches('y').count(), 20_000);
    assert!(log.ends_with("\nend"), "no newline was written: {}", &log[log.len() - 20..]);

    bench.run(&bench.sh("b", "head -c 50000 /dev/zero | tr '\\0' x 2>/dev/null || yes xxxx | head -c 50000")).await;

    bench.keeper.start(&bench.sh("c", "while :; do echo tick; sleep 0.01; done")).await.unwrap();
    let path = bench.log_path("c");
    until("a tick", || fs::metadata(&path).is_ok_and(|m| m.len() > 0)).await;
    let old = path.with_extension("old");
    fs::rename(&path, &old).unwrap();
    bench.keeper.reopen_log("c").await.unwrap();
    let len = fs::metadata(&old).unwrap().len();
    until("a tick in the new file", || fs::metadata(&path).is_ok_and(|m| m.len() > 0)).await;
    assert_eq!(fs::metadata(&old).unwrap().len(), len, "nothing goes to the old file any more");

    // A log turned into a link is not followed.
    let victim = bench.dir.path().join("victim");
    fs::write(&victim, "").unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    bench.keeper.reopen_log("c").await.unwrap_err();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "");
    bench.close().await;
}

#[tokio::test]
async fn attach_reads_and_writes() {
    let bench = Bench::new().await;
    let spec = ContainerSpec {
        stdin: true,
        stdin_once: true,
        ..bench.sh("c", "while read x; do echo got $x; done; echo over; exit 6")
    };
    bench.keeper.start(&spec).await.unwrap();
    let mut process = bench.keeper.attach("c").await.unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    let mut buf = [0; 8];
    process.stdout.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"got one\n");
    drop(stdin); // the first client leaves: the container's input ends
    assert_eq!(process.wait.await.unwrap().code, Some(6));
    assert_eq!(bench.log("c"), "got one\nover\n");
    bench.close().await;
}

#[tokio::test]
async fn attach_to_a_terminal() {
    let bench = Bench::new().await;
    let spec =
        ContainerSpec { terminal: true, stdin: true, ..bench.sh("c", "tty; read x; stty size; echo got $x; exit 2") };
    bench.keeper.start(&spec).await.unwrap();
    let mut process = bench.keeper.attach("c").await.unwrap();
    (process.resize)(90, 20);
    process.stdin.as_mut().unwrap().write_all(b"hey\n").await.unwrap();
    let mut out = String::new();
    process.stdout.read_to_string(&mut out).await.unwrap();
    assert!(out.contains("20 90") && out.contains("got hey"), "{out}");
    assert_eq!(process.wait.await.unwrap().code, Some(2));
    assert!(bench.log("c").contains("/dev/pts/0"), "{}", bench.log("c"));
    bench.close().await;
}

#[tokio::test]
async fn many_at_once() {
    let bench = Bench::new().await;
    let n = 100;
    let mut events = bench.keeper.events();
    let specs: Vec<_> = (0..n).map(|i| bench.sh(&format!("c{i}"), &format!("echo {i}; exit {}", i % 50))).collect();
    let started = futures::future::join_all(specs.iter().map(|spec| bench.keeper.start(spec))).await;
    started.into_iter().for_each(|result| drop(result.unwrap()));
    let mut codes = BTreeMap::new();
    while codes.len() < n {
        if let Event::Exited { id, exit } = events.recv().await.unwrap() {
            codes.insert(id, exit.code);
        }
    }
    for i in 0..n {
        assert_eq!(codes[&format!("c{i}")], Some(i as i32 % 50));
        assert_eq!(bench.log(&format!("c{i}")), format!("{i}\n"));
    }
    bench.close().await;
}

#[tokio::test]
async fn removal_ends_what_runs_even_while_it_starts() {
    let bench = Bench::new().await;
    let spec = bench.spec("c", &["sleep", "1000"]);
    for _ in 0..10 {
        let (started, removed) = tokio::join!(bench.keeper.start(&spec), bench.keeper.remove("c"));
        removed.unwrap();
        if started.is_ok() {
            bench.keeper.remove("c").await.unwrap();
        }
        assert!(bench.find("c").await.is_none());
    }
    assert!(matches!(
        bench.keeper.start(&ContainerSpec { sandbox: "no".into(), ..spec }).await,
        Err(Error::NotFound(_))
    ));
    bench.close().await;
}
