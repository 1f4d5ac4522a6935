//! Containers made by crun. `RAST_TEST_BACKEND=/usr/bin/crun` runs the other tests of this crate with it: all pass but
//! two, which expect libcontainer's words for a missing program, and no `/dev/core`.

mod common;

use common::{Bench, helper_pid, pid, until};
use runtime::{Backend, ContainerSpec, Error, Event, Runtime, Security};

async fn bench() -> Bench {
    Bench::with(Backend::Crun("/usr/bin/crun".into())).await
}

/// What a program can see of its rights and surroundings, but for the ways in which the two make the same: what covers
/// a masked file, links in `/dev` and `/sys/fs/cgroup` that lead nowhere, and the tmpfs (1 MiB) around v1's groups, which
/// crun leaves writable.
const LOOK: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/self/status
    grep -E 'open files' /proc/self/limits; pwd; env; cat /proc/self/cgroup; id; cat /proc/1/oom_score_adj
    ls /proc/self/fd; ls /dev | grep -v core; ls /sys/fs/cgroup | grep -v net_
    mount | grep -vE ' /proc/(keys|timer_list|kcore) | /sys/fs/cgroup type tmpfs' | awk '{print $3, $5, substr($6, 2, 2)}'
    for f in /proc/kcore /proc/keys /proc/sysrq-trigger /sys/fs/cgroup/memory/tasks /proc/sys/a; do
        (cat $f) 2>&1 | head -c 1; (echo > $f) 2>/dev/null && echo wrote $f; done
    mount -t tmpfs none /tmp 2>&1; unshare -m true 2>&1; umount /proc/keys 2>&1; ls -A /sys/firmware";

#[tokio::test]
async fn a_program_has_the_same_rights_and_surroundings_as_with_libcontainer() {
    let (ours, theirs) = (Bench::with(Backend::Libcontainer).await, bench().await);
    let user = |spec: &str| runtime::User { spec: spec.into(), groups: vec![77], ..Default::default() };
    type Rights = fn(&Bench) -> Security;
    let cases: [(&str, Rights, runtime::User); 4] = [
        ("root", |bench| bench.sh("x", "").security, user("0")),
        ("user", |bench| bench.sh("x", "").security, user("web")),
        ("escalating", |bench| Security { no_new_privileges: false, ..bench.sh("x", "").security }, user("web")),
        ("privileged", |_| Security { privileged: true, ..Security::default() }, user("0")),
    ];
    for (name, security, user) in cases {
        let look = async |bench: &Bench| {
            let spec = ContainerSpec {
                security: security(bench),
                user: user.clone(),
                cwd: "/made/here".into(),
                ..bench.sh(name, LOOK)
            };
            bench.output_of(&spec).await
        };
        let (expected, seen) = (look(&ours).await, look(&theirs).await);
        assert!(expected.contains("CapBnd") && expected.contains("/made/here"), "{expected}");
        let (expected, seen): (Vec<_>, Vec<_>) = (expected.lines().collect(), seen.lines().collect());
        let (mut lost, mut more) = (expected.clone(), seen.clone());
        lost.retain(|line| !seen.contains(line));
        more.retain(|line| !expected.contains(line));
        assert_eq!((lost, more), (vec![], vec![]), "{name}");
    }
    ours.close().await;
    theirs.close().await;
}

#[tokio::test]
async fn a_program_that_cannot_run_is_a_failed_start() {
    let bench = bench().await;
    let image = bench.dir.path().join("image/bin");
    std::fs::write(image.join("lost"), "#!/no/interpreter\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(image.join("lost"), mode).unwrap();
    for (program, said) in [("foo", "executable file `foo` not found in $PATH"), ("lost", "exec: \"lost\"")] {
        match bench.keeper.start(&bench.spec("c", &[program])).await {
            Err(Error::Start { why, .. }) => assert!(why.contains(said), "{why}"),
            other => panic!("{program}: {other:?}"),
        }
        assert_eq!(bench.find("c").await, None);
    }
    bench.close().await;
}

#[tokio::test]
async fn a_container_outlives_the_helper_and_keeps_its_exit_code() {
    let bench = bench().await;
    let mut events = bench.keeper.events();
    let script = "trap 'echo bye; exit 42' TERM; echo here; while :; do sleep 0.01; done";
    let started = bench.keeper.start(&bench.sh("c", script)).await.unwrap();
    until("a word", || bench.log("c").contains("here")).await;
    let helper = helper_pid(&bench.dir.path().join("run"));
    let parent = std::fs::read_to_string(format!("/proc/{}/stat", pid(&started))).unwrap();
    let parent = parent.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(parent, helper.to_string(), "no process stands between");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper), nix::sys::signal::Signal::SIGKILL).unwrap();
    while !matches!(events.recv().await.unwrap(), Event::Resync) {}
    assert_eq!(bench.find("c").await.unwrap(), started);
    let (out, _, _) = bench.exec("c", &["echo", "exec works"]).await;
    assert_eq!(out, "exec works\n");
    bench.keeper.kill("c", libc::SIGTERM).await.unwrap();
    let Event::Exited { exit, .. } = events.recv().await.unwrap() else { panic!() };
    assert_eq!((exit.code, exit.signal), (Some(42), None));
    assert_eq!(bench.log("c"), "here\nbye\n");
    bench.close().await;
}

#[tokio::test]
async fn an_end_at_once_is_seen() {
    let bench = bench().await;
    for (id, program, code) in [("a", "true", 0), ("b", "false", 1), ("c", "true", 0)] {
        assert_eq!(bench.run(&bench.spec(id, &[program])).await.code, Some(code));
    }
    bench.close().await;
}
