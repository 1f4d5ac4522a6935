//! What a hostile program (`tests/probe/probe.c`) tries from inside.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::PathBuf, process::Command};

use serde_json::{Value, json};
use tests::{
    Instance, eventually,
    host::mounts_below,
    pods::{container, pod},
};

/// The verdict of the default filter on every call, in runs of numbers.
const VERDICTS: &str = include_str!("syscalls.txt");
/// Beyond the newest call there is.
const LAST: &str = "520";
/// The kernel's own returns from probes; newer kernels ask no filter about them.
const UPROBES: [u32; 2] = [335, 336];

/// Compiles a source of `tests/probe`.
fn compiled(dir: &tempfile::TempDir, source: &str, flags: &[&str]) -> PathBuf {
    let (source, program) = (format!("{}/probe/{source}", env!("CARGO_MANIFEST_DIR")), dir.path().join("probe"));
    let mut cc = Command::new("cc");
    let done = cc.args(flags).args(["-Os", "-s", "-o"]).arg(&program).arg(source).status().expect("a compiler");
    assert!(done.success(), "{cc:?}: {done}");
    program
}

/// Puts a program into a running container, at `at`.
fn put_at(instance: &Instance, pod: &Value, at: &str, source: &str, flags: &[&str]) {
    let dir = tempfile::tempdir().expect("a directory");
    let there = PathBuf::from(format!("/proc/{}/root{at}", instance.first_process(pod)));
    fs::create_dir_all(there.parent().expect("a directory")).expect("the directory is made");
    // Whoever waits for it finds it whole.
    let part = there.with_extension("part");
    fs::copy(compiled(&dir, source, flags), &part).and_then(|_| fs::rename(&part, &there)).expect("it is copied");
}

/// Puts the probe into a running container, at `at`.
fn put(instance: &Instance, pod: &Value, at: &str) {
    put_at(instance, pod, at, "probe.c", &["-static"]);
}

/// Tries one trick in the pod `probe`; gives what came of each of its parts.
fn tried(instance: &Instance, words: &[&str]) -> BTreeMap<String, String> {
    let said = instance.rast().ok(&[&["exec", "probe", "--", "/tmp/probe"], words].concat());
    let pair = |line: &str| line.split_once(' ').map(|(what, result)| (what.to_owned(), result.to_owned()));
    said.lines().filter_map(pair).collect()
}

#[test]
fn a_hostile_program_gets_no_further() {
    let instance = Instance::up();
    instance.apply(&[pod("probe", "exec sleep 1000")]);
    put(&instance, &instance.ready("probe"), "/tmp/probe");
    every_system_call_is_as_listed(&instance);
    nothing_of_the_host_is_reached(&instance);
    nobody_who_enters_can_be_overwritten(&instance);
}

fn every_system_call_is_as_listed(instance: &Instance) {
    let verdicts = tried(instance, &["sweep", LAST]);
    let verdicts: BTreeMap<u32, &str> =
        verdicts.iter().map(|(number, verdict)| (number.parse().expect("a number"), &**verdict)).collect();
    let mut runs: Vec<(u32, u32, &str)> = Vec::new();
    for (number, verdict) in verdicts.into_iter().filter(|(number, _)| !UPROBES.contains(number)) {
        match runs.last_mut() {
            Some((_, last, same)) if *same == verdict && *last + 1 == number => *last = number,
            _ => runs.push((number, number, verdict)),
        }
    }
    let text: String = runs
        .iter()
        .map(|(first, last, verdict)| {
            format!("{first:>3}-{last:<3} {verdict:<8} {} … {}\n", call_name(*first), call_name(*last))
        })
        .collect();
    assert!(text == VERDICTS, "the filter is not as tests/tests/isolation/syscalls.txt has it, but:\n{text}");
}

/// The name of a call on this architecture, from the kernel's headers, which name those of 2022 and before everywhere.
fn call_name(number: u32) -> String {
    if number > 450 {
        return "newer".to_owned();
    }
    let header = fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").unwrap_or_default();
    let named = header.lines().find_map(|line| {
        let (name, value) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        (value.trim() == number.to_string()).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| "none".to_owned())
}

fn nothing_of_the_host_is_reached(instance: &Instance) {
    let results = tried(instance, &["reach", &std::process::id().to_string()]);
    for (what, expected) in [
        // CVE-2014-9357: a handle names an inode of the whole file system.
        ("open_by_handle_at", "EPERM"),
        // The host's processes have no number here.
        ("ptrace-host", "ESRCH"),
        ("read-host", "ESRCH"),
        ("signal-host", "ESRCH"),
        ("pidfd-host", "ESRCH"),
        ("init_module", "EPERM"),
        ("finit_module", "EPERM"),
        ("delete_module", "EPERM"),
        ("bpf", "EPERM"),
        ("perf_event_open", "EPERM"),
        ("keyctl", "EPERM"),
        ("add_key", "EPERM"),
        ("request_key", "EPERM"),
        ("userfaultfd", "EPERM"),
        ("io_uring_setup", "EPERM"),
        ("kexec_load", "EPERM"),
        ("clone3-user", "ENOSYS"),
        ("socket-crypto", "ENOSYS"),
        ("socket-hypervisor", "ENOSYS"),
        // The kernel takes the lower 32 bits for the family.
        ("socket-hypervisor-hidden", "ENOSYS"),
    ] {
        assert_eq!(results.get(what).map(String::as_str), Some(expected), "{what}");
    }
}

/// CVE-2019-5736: whoever enters a container is the runtime's program for a moment. Told to execute itself, it does so by
/// the image's loader, which holds its file then and can wait until it is not busy any more: so the file must be on a
/// mount that takes no writes.
fn nobody_who_enters_can_be_overwritten(instance: &Instance) {
    let flags = ["-nostdlib", "-static-pie", "-fPIC", "-fno-stack-protector"];
    put_at(instance, &instance.ready("probe"), "/lib64/ld-linux-x86-64.so.2", "loader.c", &flags);
    let program = fs::read_link(format!("/proc/{}/exe", instance.pid())).expect("rast runs");
    let before = fs::metadata(&program).expect("rast's file");
    let said = instance.rast().ok(&["exec", "probe", "--", "/proc/self/exe"]);
    assert_eq!(said, format!("caught {}\nwrite-to-runtime EROFS\n", before.ino()));
    assert_eq!(fs::metadata(&program).expect("rast's file").mtime(), before.mtime());
}

/// CVE-2021-30465 and its kin: while containers are made whose mounts lead into a volume, another container exchanges what
/// they lead through for a symlink to the host, 10,000 times and more.
#[test]
fn symlinks_exchanged_on_a_shared_volume_lead_nowhere() {
    let instance = Instance::up();
    let host = tempfile::tempdir().expect("a directory of the host");
    let secret = host.path().join("word");
    fs::write(&secret, "of the host").expect("a file of the host");
    let inode = fs::metadata(host.path()).and_then(|found| found.modified()).expect("a time");
    let script = "cd /shared; mkdir target; echo of the pod >target/word; ln -s \"$HOST\" link; until [ -x probe ]; do sleep 0.1; done; \
                  touch go; while ./probe swap target link 10000; do :; done";
    let mut racers = pod("racers", "");
    let image = racers["spec"]["containers"][0]["image"].clone();
    let shared = json!({"name": "shared", "mountPath": "/shared"});
    racers["spec"]["volumes"] = json!([{"name": "shared", "emptyDir": {}}, {"name": "own", "emptyDir": {}}]);
    racers["spec"]["initContainers"] = json!([{
        "name": "swap", "image": image, "restartPolicy": "Always", "command": ["sh", "-c", script],
        "env": [{"name": "HOST", "value": host.path()}], "volumeMounts": [shared],
        "startupProbe": {"exec": {"command": ["test", "-e", "/shared/go"]}, "periodSeconds": 1, "failureThreshold": 90},
    }]);
    let writes = "cat /file; for dir in /shared/target /sub /shared/link; do echo x >$dir/touched; done; \
                  echo x >/file; exec sleep 1000";
    let victim = |n: usize| {
        json!({
            "name": format!("victim-{n}"), "image": image, "command": ["sh", "-c", writes],
            "volumeMounts": [
                shared,
                {"name": "own", "mountPath": "/shared/target"},
                {"name": "shared", "mountPath": "/sub", "subPath": "target"},
                {"name": "shared", "mountPath": "/file", "subPath": "target/word"},
            ],
        })
    };
    racers["spec"]["containers"] = (0..10).map(victim).collect();
    instance.apply(&[racers]);
    eventually("the racer runs", || {
        let pod = instance.get("pod/racers");
        let running = !pod["status"]["initContainerStatuses"][0]["state"]["running"].is_null();
        if running { Ok(()) } else { Err(pod["status"].to_string()) }
    });
    put(&instance, &instance.get("pod/racers"), "/shared/probe");

    eventually("each victim was made or refused", || {
        let pod = instance.get("pod/racers");
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let tried = |status: &Value| {
            let reason = status["state"]["waiting"]["reason"].as_str().unwrap_or("PodInitializing");
            !status["state"]["running"].is_null() || !["PodInitializing", "ContainerCreating"].contains(&reason)
        };
        if statuses.len() == 10 && statuses.iter().all(tried) { Ok(()) } else { Err(pod["status"].to_string()) }
    });
    assert!(instance.rast().ok(&["logs", "racers", "-c", "swap"]).contains("swap ok"), "it exchanged 10,000 times");
    let states: Vec<_> = instance.get("pod/racers")["status"]["containerStatuses"]
        .as_array()
        .expect("statuses")
        .iter()
        .map(|status| status["state"].to_string())
        .collect();
    eprintln!("{states:#?}");
    let names: Vec<_> = fs::read_dir(host.path()).expect("it is there").flatten().map(|entry| entry.path()).collect();
    assert_eq!(names, [&*secret], "the host was written to");
    assert_eq!(fs::read_to_string(&secret).ok().as_deref(), Some("of the host"));
    for n in 0..10 {
        let said = instance.rast().run(&["logs", "racers", "-c", &format!("victim-{n}")]).out;
        assert!(!said.contains("of the host"), "victim-{n} read the host's file");
    }
    assert_eq!(fs::metadata(host.path()).and_then(|found| found.modified()).ok(), Some(inode));
    assert_eq!(mounts_below(host.path()), Vec::<PathBuf>::new());
    // A later pod is as it should be.
    instance.apply(&[pod("later", "exec sleep 1000")]);
    assert_eq!(container(&instance.ready("later"))["restartCount"], 0);
}
