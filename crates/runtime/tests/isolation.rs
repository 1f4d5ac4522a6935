//! What a container must not be able to do or see ("Isolation checks").

mod common;

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _};

use common::Bench;
use runtime::{ContainerSpec, Error, ExecSpec, Runtime, Seccomp};

fn status(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(":\t")).map(|(k, v)| (k, v.trim())).collect()
}

/// Bits of the capabilities in `common::CAPABILITIES`.
fn expected() -> String {
    let bits = [0u64, 1, 3, 4, 5, 6, 7, 8, 10, 31, 18];
    format!("{:016x}", bits.iter().fold(0, |set, bit| set | 1 << bit))
}

#[tokio::test]
async fn rights_are_exact_for_the_first_process_and_for_exec() {
    let bench = Bench::new().await;
    bench.keeper.start(&bench.sh("c", "cat /proc/self/status; sleep 1000")).await.unwrap();
    common::until("the status", || fs::read_to_string(bench.log_path("c")).unwrap().contains("nonvoluntary")).await;
    let (exec, _, _) = bench.exec("c", &["cat", "/proc/self/status"]).await;
    for text in [bench.log("c"), exec] {
        let status = status(&text);
        let expected = expected();
        for (set, bits) in [("CapEff", &*expected), ("CapPrm", &expected), ("CapBnd", &expected)] {
            assert_eq!(status[set], bits, "{set}");
        }
        assert_eq!((status["CapInh"], status["CapAmb"]), ("0000000000000000", "0000000000000000"));
        assert_eq!((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"));
        assert_eq!((status["Seccomp_filters"], status["SigIgn"]), ("1", "0000000000000000"));
        assert_eq!(status["SigBlk"], "0000000000000000");
    }
    bench.close().await;
}

#[tokio::test]
async fn a_user_that_is_not_root_holds_nothing() {
    let bench = Bench::new().await;
    let mut spec = bench.sh("c", "cat /proc/self/status; echo x > /dev/stdout");
    spec.user.spec = "1000:1001".into();
    spec.security.no_new_privileges = false;
    let text = bench.output_of(&spec).await;
    let status = status(&text);
    assert_eq!(
        (status["CapEff"], status["CapPrm"], status["NoNewPrivs"]),
        ("0000000000000000", "0000000000000000", "0")
    );
    assert_eq!((status["Seccomp"], status["CapBnd"]), ("2", &*expected()));
    assert!(text.ends_with("x\n"), "its own output can be reopened: {text}");
    bench.close().await;
}

#[tokio::test]
async fn nothing_is_inherited() {
    let bench = Bench::new().await;
    let script = "ls -l /proc/self/fd 2>/dev/null; echo; env; echo; cat /proc/self/mountinfo; echo; ls /dev";
    let out = bench.output("c", script).await;
    let sections: Vec<_> = out.split("\n\n").collect();
    let fds: Vec<_> = sections[0].lines().filter(|l| l.contains(" -> ") && !l.contains("/proc/")).collect();
    assert_eq!(fds.len(), 3, "{}", sections[0]);
    assert!(!sections[1].contains("RAST") && sections[1].contains("PATH="), "{}", sections[1]);
    let mounts = sections[2];
    assert!(!mounts.contains(bench.dir.path().to_str().unwrap()), "a host path: {mounts}");
    assert!(!mounts.contains("shared:"), "{mounts}");
    let cgroups = mounts.lines().filter(|l| l.contains(" - cgroup"));
    assert!(cgroups.clone().count() > 0 && cgroups.clone().all(|l| l.contains(" ro,")), "{mounts}");
    let own = mounts.lines().filter(|l| l.contains(" - cgroup")).all(|l| l.split(' ').nth(3) == Some("/"));
    assert!(own, "its own groups are the root: {mounts}");
    let mut devices: Vec<_> = sections[3].split_whitespace().collect();
    devices.sort_unstable();
    let expected = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
        "zero",
    ];
    assert_eq!(devices, expected);
    bench.close().await;
}

#[tokio::test]
async fn the_kernel_is_out_of_reach() {
    let bench = Bench::new().await;
    let mut spec = bench.sh(
        "c",
        "cat /proc/kcore | head -c 1 | wc -c; cat /proc/keys | wc -c; ls /proc/acpi 2>/dev/null | wc -l; ls /sys/firmware | wc -l
         umount /sys/firmware && echo unmounted
         echo 1 > /proc/sys/kernel/core_pattern && echo wrote core_pattern
         echo b > /proc/sysrq-trigger && echo wrote sysrq
         touch /sys/x && echo wrote sys
         find /sys/fs/cgroup -name release_agent -exec sh -c 'echo x > $1' _ {} ';' 2>/dev/null
         for f in /sys/fs/cgroup/*/cgroup.procs; do echo 0 > $f && echo wrote $f; done
         mount -t tmpfs none /tmp && echo mounted
         unshare -U true && echo userns
         unshare -m true && echo mountns
         mknod /tmp/sda b 8 0; cat /tmp/sda >/dev/null && echo read a disk
         ls -d /proc/1/root/work && echo outside
         kill -0 2 && echo a stranger
         true",
    );
    spec.security.capabilities.push("CAP_MKNOD".into());
    let out = bench.output_of(&spec).await;
    let stdout: Vec<_> = fs::read_to_string(bench.log_path("c"))
        .unwrap()
        .lines()
        .filter(|l| l.contains(" stdout "))
        .map(|l| l.rsplit(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(stdout, ["0", "0", "0", "0"], "{out}");
    bench.close().await;
}

#[tokio::test]
async fn namespaces_differ_from_the_hosts() {
    let bench = Bench::new().await;
    let names = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
    let script = names.map(|n| format!("readlink /proc/self/ns/{n}")).join(";");
    let out = bench.output("c", &script).await;
    for (name, inside) in names.iter().zip(out.lines()) {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(host.to_str().unwrap(), inside, "{name}");
    }
    bench.close().await;
}

#[tokio::test]
async fn a_directory_outside_is_refused() {
    let bench = Bench::new().await;
    for fd in 3..20 {
        let id = format!("c{fd}");
        let spec = ContainerSpec { cwd: format!("/proc/self/fd/{fd}").into(), ..bench.spec(&id, &["pwd"]) };
        match bench.keeper.start(&spec).await {
            Err(Error::Start { .. }) => {}
            Ok(_) => panic!("entered /proc/self/fd/{fd}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    bench.close().await;
}

#[tokio::test]
async fn the_helpers_own_file_cannot_be_written() {
    let bench = Bench::new().await;
    let exe = format!("/proc/{}/exe", bench.helper_pid());
    fs::File::options().write(true).open(&exe).unwrap_err();
    // On a read-only mount, not merely busy: busy ends with the process, and a container could wait for that.
    let fd = fs::File::open(&exe).unwrap();
    let mount = rustix::fs::fstatvfs(&fd).unwrap();
    assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    // The classic: the container's program is /proc/self/exe, i.e. the helper, which then finds itself inside.
    let result = bench.keeper.start(&bench.spec("c", &["/proc/self/exe", "--dir", "/", "--instance", "x"])).await;
    drop(result);
    bench.close().await;
}

#[tokio::test]
async fn a_read_only_root_and_a_privileged_one() {
    let bench = Bench::new().await;
    let mut spec = bench.sh("a", "touch /x && echo wrote; touch /dev/shm/x && echo shm");
    spec.security.read_only_root = true;
    let out = bench.output_of(&spec).await;
    assert!(!out.contains("wrote") && out.ends_with("shm\n"), "{out}");

    let mut spec = bench.sh("b", "grep -E 'Seccomp:|CapEff' /proc/self/status; mount -t tmpfs none /tmp && echo mounted; cat /proc/keys >/dev/null && echo keys");
    spec.security.privileged = true;
    spec.security.no_new_privileges = false;
    let out = bench.output_of(&spec).await;
    assert!(out.contains("Seccomp:\t0") && out.contains("mounted") && out.contains("keys"), "{out}");
    bench.close().await;
}

#[tokio::test]
async fn seccomp_of_other_kinds() {
    let bench = Bench::new().await;
    let profile = bench.dir.path().join("profile.json");
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":123}]}"#;
    fs::write(&profile, json).unwrap();
    let mut spec = bench.sh("a", "busybox mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status");
    spec.security.seccomp = Seccomp::Localhost(profile);
    let out = bench.output_of(&spec).await;
    assert!(out.contains("No medium found") && out.contains("Seccomp:\t2"), "{out}");
    let mut spec = bench.sh("b", "grep Seccomp: /proc/self/status");
    spec.security.seccomp = Seccomp::Unconfined;
    assert_eq!(bench.output_of(&spec).await, "Seccomp:\t0\n");
    let mut spec = bench.sh("c", "true");
    spec.security.seccomp = Seccomp::Localhost("/nonexistent".into());
    assert!(matches!(bench.keeper.start(&spec).await, Err(Error::Invalid { .. })));
    bench.close().await;
}

#[tokio::test]
async fn exec_does_not_trust_the_containers_devices() {
    let bench = Bench::new().await;
    let mut spec =
        bench.sh("c", "rm -f /dev/ptmx 2>/dev/null; busybox rm -rf /dev/ptmx; touch /dev/ptmx; echo done; sleep 1000");
    spec.user.spec = "0".into();
    bench.keeper.start(&spec).await.unwrap();
    common::until("the trap", || fs::read_to_string(bench.log_path("c")).unwrap().contains("done")).await;
    let exec = ExecSpec { args: vec!["tty".into()], terminal: true, ..ExecSpec::default() };
    let process = bench.keeper.exec("c", &exec).await.unwrap();
    assert_eq!(process.wait.await.unwrap().code, Some(0));
    bench.close().await;
}

#[tokio::test]
async fn the_hosts_null_is_no_stream_of_a_container() {
    let bench = Bench::new().await;
    bench.keeper.start(&bench.sh("c", "sleep 1000")).await.unwrap();
    let stat = ["busybox", "stat", "-L", "-c", "%d:%i:%t:%T", "/proc/self/fd/0"];
    let (input, _, _) = bench.exec("c", &stat).await;
    let host = fs::metadata("/dev/null").unwrap();
    assert!(input.trim_end().ends_with(":1:3"), "{input}");
    assert!(!input.starts_with(&format!("{}:{}:", host.dev(), host.ino())), "{input}");
    // One that the container has put there itself is not taken.
    bench.exec("c", &["sh", "-c", "busybox rm /dev/null; echo secret > /dev/null"]).await;
    let (said, _, exit) = bench.exec("c", &["cat"]).await;
    assert_eq!((said.as_str(), exit.code), ("", Some(0)));
    bench.close().await;
}
