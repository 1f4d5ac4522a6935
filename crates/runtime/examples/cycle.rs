//! Create, start, exit and remove of `true` with either backend, beside `crun run` of the same root.
//!
//! `cargo run --release -p runtime --example cycle [ROUNDS [PODS]]` as root. Prints medians and minima in
//! milliseconds, interleaved so that a busy machine bears on both alike; then starts PODS sandboxes with a
//! container each at once, and prints their rate and what the helper's memory is with them. In between, how fast a
//! container's words reach its log.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use runtime::{Backend, Config, ContainerSpec, Event, ExecSpec, Keeper, Rootfs, Runtime, SandboxSpec, Security};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.peek().is_some_and(|a| a == "helper") {
        return runtime::helper::main(args.skip(1));
    }
    let rounds = args.next().and_then(|n| n.parse().ok()).unwrap_or(20);
    let pods = args.next().and_then(|n| n.parse().ok()).unwrap_or(100);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("tokio").block_on(measure(rounds, pods));
    ExitCode::SUCCESS
}

async fn measure(rounds: usize, pods: usize) {
    let dir = std::env::temp_dir().join(format!("rast-cycle-{}", std::process::id()));
    let run_dir = Path::new("/run").join(format!("rast-cycle-{}", std::process::id()));
    let image = dir.join("image");
    for path in ["bin", "etc", "dev", "proc", "sys"] {
        fs::create_dir_all(image.join(path)).expect("image");
    }
    fs::copy("/usr/bin/busybox", image.join("bin/busybox")).expect("busybox-static");
    for applet in ["true", "sleep", "seq"] {
        symlink("busybox", image.join("bin").join(applet)).expect("applet");
    }
    let config = Config {
        run_dir: run_dir.clone(),
        instance: format!("cycle{}", std::process::id()),
        program: "/proc/self/exe".into(),
        args: vec!["helper".into()],
        backend: Backend::default(),
    };
    let by_crun = Config {
        run_dir: run_dir.with_extension("crun"),
        instance: format!("{}crun", config.instance),
        backend: Backend::Crun("/usr/bin/crun".into()),
        ..config.clone()
    };
    let crun_dir = by_crun.run_dir.clone();
    let keeper = Keeper::start(config).await.expect("keeper");
    let by_crun = Keeper::start(by_crun).await.expect("keeper");
    let sandbox = |id: &str| SandboxSpec { id: id.into(), cgroup: id.into(), ..SandboxSpec::default() };
    keeper.make_sandbox(&sandbox("pod")).await.expect("sandbox");
    by_crun.make_sandbox(&sandbox("pod")).await.expect("sandbox");
    let spec = |id: &str, args: &[&str]| ContainerSpec {
        id: id.into(),
        sandbox: "pod".into(),
        rootfs: Rootfs { lower: vec![image.clone()], upper: dir.join(id).join("u"), work: dir.join(id).join("w") },
        args: args.iter().map(|a| (*a).into()).collect(),
        security: Security { no_new_privileges: true, ..Security::default() },
        log: dir.join(id).join("log"),
        ..ContainerSpec::default()
    };
    let bundle = bundle(&dir, &image);
    let mut rows = [const { Vec::new() }; 9];
    let (mut events, mut crun_events) = (keeper.events(), by_crun.events());
    for i in 0..rounds {
        let began = Instant::now();
        let since = |began: Instant| began.elapsed().as_secs_f64() * 1e3;
        let id = format!("c{i}");
        keeper.start(&spec(&id, &["true"])).await.expect("start");
        rows[0].push(since(began));
        while !matches!(events.recv().await, Ok(Event::Exited { id: ended, .. }) if ended == id) {}
        rows[1].push(since(began));
        keeper.remove(&id).await.expect("remove");
        rows[2].push(since(began));

        let began = Instant::now();
        keeper.make_sandbox(&sandbox("other")).await.expect("sandbox");
        rows[3].push(since(began));
        keeper.remove_sandbox("other").await.expect("sandbox");

        let began = Instant::now();
        let crun =
            "mount -t tmpfs none /sys/fs/cgroup/unified 2>/dev/null; exec crun --root \"$1\" run -b \"$2\" cycle-$3";
        let status = Command::new("unshare")
            .args(["-m", "sh", "-c", crun, "sh"])
            .args([dir.join("crun"), bundle.clone()])
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .status();
        rows[4].push(since(began));
        assert!(status.is_ok_and(|s| s.success()), "crun failed");

        let began = Instant::now();
        Command::new(image.join("bin/busybox")).arg("true").status().expect("busybox");
        rows[5].push(since(began));

        let began = Instant::now();
        by_crun.start(&spec(&id, &["true"])).await.expect("start");
        rows[7].push(since(began));
        while !matches!(crun_events.recv().await, Ok(Event::Exited { id: ended, .. }) if ended == id) {}
        rows[8].push(since(began));
        by_crun.remove(&id).await.expect("remove");
    }
    by_crun.remove_sandbox("pod").await.expect("remove");
    by_crun.stop().await.expect("stop");
    fs::remove_dir_all(crun_dir).expect("clean");
    keeper.start(&spec("long", &["sleep", "1000"])).await.expect("start");
    for _ in 0..rounds {
        let began = Instant::now();
        let exec = ExecSpec { args: vec!["true".into()], ..ExecSpec::default() };
        keeper.exec("long", &exec).await.expect("exec").wait.await.expect("exit");
        rows[6].push(began.elapsed().as_secs_f64() * 1e3);
    }
    let names = ["start", "… to exit", "… to removed", "sandbox", "crun run", "fork + exec", "exec to exit"];
    let names = names.into_iter().chain(["start by crun", "… to exit"]);
    for (name, mut row) in names.zip(rows) {
        row.sort_by(f64::total_cmp);
        println(&format!("{name:>14}  median {:7.2}  min {:7.2}", row[row.len() / 2], row[0]));
    }
    for round in 0..rounds.min(5) {
        let (began, id) = (Instant::now(), format!("seq{round}"));
        keeper.start(&spec(&id, &["seq", "1", "2000000"])).await.expect("start");
        while !matches!(events.recv().await, Ok(Event::Exited { id: ended, .. }) if ended == id) {}
        println(&format!("14.2 MiB in 2,000,000 lines logged in {:.0} ms", began.elapsed().as_secs_f64() * 1e3));
    }
    keeper.remove_sandbox("pod").await.expect("remove");

    let pss = || helper_pss(&run_dir);
    let (before, began) = (pss(), Instant::now());
    let names: Vec<String> = (0..pods).map(|i| format!("p{i}")).collect();
    let start = async |id: &String| {
        keeper.make_sandbox(&sandbox(id)).await.expect("sandbox");
        let began = Instant::now();
        keeper.start(&ContainerSpec { sandbox: id.clone(), ..spec(id, &["sleep", "1000"]) }).await.expect("start");
        began.elapsed()
    };
    // Thirty under way at a time, as an agent would.
    let waits: Vec<_> =
        futures::StreamExt::collect(futures::StreamExt::buffered(futures::stream::iter(names.iter().map(start)), 30))
            .await;
    let took = began.elapsed().as_secs_f64();
    println(&format!("{pods} pods in {took:.2} s: {:.0}/s", pods as f64 / took));
    let tenth = (pods / 10).max(1);
    let mean =
        |part: &[std::time::Duration]| part.iter().sum::<std::time::Duration>().as_secs_f64() * 1e3 / part.len() as f64;
    // Without the first, which found an empty queue.
    let full = &waits[30.min(pods - tenth)..];
    let (early, late) = (mean(&full[..tenth]), mean(&full[full.len() - tenth..]));
    println(&format!("a start among thirty: {early:.1} ms early, {late:.1} ms late"));
    println(&format!("helper {before} KiB before, {} KiB with them", pss()));
    let began = Instant::now();
    let gone = names.iter().map(|id| keeper.remove_sandbox(id));
    futures::future::join_all(gone).await.into_iter().for_each(|r| r.expect("remove"));
    println(&format!("removed in {:.2} s", began.elapsed().as_secs_f64()));
    keeper.stop().await.expect("stop");
    fs::remove_dir_all(&run_dir).expect("clean");
    fs::remove_dir_all(&dir).expect("clean");
}

/// KiB of memory of the helper that are its own: proportional, without what it shares with others.
fn helper_pss(run_dir: &Path) -> u64 {
    let wanted = run_dir.to_str().expect("path");
    let of = |pid: &str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let helper = String::from_utf8_lossy(&line).contains(wanted);
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().filter(|_| helper)?;
        let pss = rollup.lines().find_map(|l| l.strip_prefix("Pss_Anon:"))?;
        pss.split_whitespace().next()?.parse::<u64>().ok()
    };
    let pids = fs::read_dir("/proc").expect("proc").flatten();
    pids.filter_map(|e| of(e.file_name().to_str()?)).sum()
}

#[allow(clippy::print_stdout)]
fn println(line: &str) {
    println!("{line}");
}

/// The same container for crun: same root, namespaces, mounts; its network namespace is made each time.
fn bundle(dir: &Path, image: &Path) -> std::path::PathBuf {
    let bundle = dir.join("bundle");
    fs::create_dir_all(&bundle).expect("bundle");
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
                    "capabilities": {"bounding": [], "effective": [], "permitted": []}},
        "root": {"path": image},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["mode=1777"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}],
                  "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"], "readonlyPaths": ["/proc/sys", "/proc/bus"]},
    });
    fs::write(bundle.join("config.json"), config.to_string()).expect("config");
    bundle
}
