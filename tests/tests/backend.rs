//! Containers made by the host's crun, chosen by `runtime: crun`.

use std::fs;

use serde_json::json;
use tests::{
    Instance, eventually,
    host::{alive, cgroups, end, mounts_below},
    pods::{container, pod},
};

fn parent(process: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let field = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(1));
    field.and_then(|pid| pid.parse().ok()).expect("a parent")
}

#[test]
fn pods_run_by_crun_and_outlive_rast_and_its_helper() {
    let mut instance = Instance::prepared();
    let etc = instance.root().join("etc/rastos");
    fs::create_dir_all(&etc).expect("the directory");
    fs::write(etc.join("config.yaml"), "runtime: crun\n").expect("the settings");
    instance.start();
    let mut ends = pod("ends", "echo begun; until [ -e /tmp/end ]; do sleep 0.1; done; echo ended; exit 7");
    ends["spec"]["restartPolicy"] = json!("Never");
    instance.apply(&[ends]);
    let process = instance.first_process(&instance.ready("ends"));
    let (helper, name) = (instance.helper().pid, instance.helper().instance);
    assert_eq!(parent(process), helper, "no process of its own stands between");
    assert_eq!(instance.rast().ok(&["exec", "ends", "--", "cat", "/proc/1/comm"]), "sh\n");
    // libcontainer makes no such link: it was crun.
    instance.rast().ok(&["exec", "ends", "--", "readlink", "/dev/core"]);

    instance.kill();
    end(helper);
    assert!(alive(process));
    instance.start();
    let pod = instance.ready("ends");
    assert_eq!(instance.first_process(&pod), process);
    assert_eq!(container(&pod)["restartCount"], 0);
    instance.rast().ok(&["exec", "ends", "--", "touch", "/tmp/end"]);
    let code = eventually("it ends", || {
        let pod = instance.get("pod/ends");
        container(&pod)["state"]["terminated"]["exitCode"].as_i64().ok_or_else(|| pod["status"].to_string())
    });
    // -1 where the kernel does not tell a process that is not its parent.
    assert!([7, -1].contains(&code), "the exit code {code} is invented");
    assert_eq!(instance.rast().ok(&["logs", "ends"]), "begun\nended\n");

    instance.rast().ok(&["down"]);
    instance.wait();
    assert!(!alive(process));
    assert_eq!(cgroups(&name), Vec::<std::path::PathBuf>::new());
    assert_eq!(mounts_below(instance.root()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn without_crun_it_says_so_and_starts_nothing() {
    let instance = Instance::prepared();
    let output = instance.command().args(["--runtime", "crun"]).env("PATH", "/nowhere").output().expect("rast starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("crun is not in PATH; install it, or say `runtime: libcontainer`"), "{said}");
}
