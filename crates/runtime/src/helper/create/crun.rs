//! The container by crun, executed.
//!
//! crun gets the whole bundle, process and rights included, and nothing to do with cgroups: this worker is in the
//! container's already, and shows crun a host without any, so that it has none to refuse (a hybrid host's) or to move
//! the container out of. Its state is forgotten once the program runs: what follows (waiting, signals, exec,
//! removal) needs the process alone, and is the same for every backend.

use std::{
    fs,
    io::Read,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustix::io::FdFlags;
use serde_json::{Value, json};

use super::{Bundle, CONFIG, CONSOLE, Process, STATE, pipe, streams};
use crate::{
    ContainerSpec, Error, Result,
    finish::{self, Payload},
    helper::record,
};

/// The container's name towards crun, unique in its own [`STATE`].
const NAME: &str = "c";
const LOG: &str = "crun.log";
const PID: &str = "pid";

/// Makes the container and starts its program.
pub fn start(bundle: Bundle<'_>, program: &Path) -> Result<Process> {
    let (job, spec) = (bundle.job, bundle.job.spec);
    let path = job.dir.join(CONFIG);
    let config = complete(bundle.config, &bundle.payload);
    fs::write(&path, config.to_string()).map_err(Error::io(format!("write {}", path.display())))?;
    // What crun leaves behind becomes this worker's child, and stays at hand when it ends at once.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Error::io("become a subreaper"))?;

    let (mut replaced, held) = pipe()?;
    let mut create = crun(program);
    create.args(["create", "--bundle", ".", "--pid-file", PID]);
    if spec.terminal {
        create.args(["--console-socket", CONSOLE]);
        create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    } else {
        let [stdin, stdout, stderr] = streams(job)?;
        create.stdin(stdin).stdout(stdout).stderr(stderr);
    }
    run(create.arg(NAME), spec, Some(held))?;
    let pid = fs::read_to_string(PID).ok().and_then(|pid| pid.trim().parse().ok()).unwrap_or(0);
    let process = Process::find(spec, pid)?;
    run(
        crun(program).args(["start", NAME]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
        spec,
        None,
    )?;

    // crun marks what it does not know close-on-exec last of all: this ends when the program replaces the process,
    // or with the process.
    replaced.read_to_end(&mut Vec::new()).map_err(Error::io("read the start's outcome"))?;
    if !record::has_executed(pid) {
        // crun says why where the program would: nobody else listens by then.
        let program = spec.args.first().map_or("", String::as_str);
        let why = format!("exec: {program:?}: crun could not execute it; the last line of its log says why");
        return Err(Error::Start { id: spec.id.clone(), why });
    }
    for leftover in [LOG, PID] {
        let _ = fs::remove_file(leftover);
    }
    Ok(process)
}

fn crun(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--root", STATE, "--cgroup-manager", "disabled", "--log", LOG, "--log-format", "json"]);
    // By fork and not by posix_spawn, which would leave two signals ignored in the container.
    command.env_clear().uid(0);
    command
}

/// Runs crun to its end. It inherits `held`, if given; its own words are the error.
fn run(command: &mut Command, spec: &ContainerSpec, held: Option<OwnedFd>) -> Result<()> {
    if let Some(held) = &held {
        rustix::io::fcntl_setfd(held, FdFlags::empty()).map_err(Error::io("hand on a descriptor"))?;
    }
    let status = command.status().map_err(Error::io(format!("run {}", command.get_program().display())))?;
    if status.success() {
        return Ok(());
    }
    let log = fs::read_to_string(LOG).unwrap_or_default();
    let why = last_error(&log).unwrap_or_else(|| status.to_string());
    Err(Error::Start { id: spec.id.clone(), why: format!("crun: {why}") })
}

/// The last error of a log of JSON lines.
fn last_error(log: &str) -> Option<String> {
    let entries = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut errors = entries.filter(|entry| entry["level"] == "error");
    errors.find_map(|entry| Some(entry["msg"].as_str()?.to_owned()))
}

/// Adds to a configuration the process and its rights, as [`finish`] would give them.
fn complete(mut config: Value, payload: &Payload) -> Value {
    let names = payload.capabilities.iter_names().map(|(name, _)| format!("CAP_{name}"));
    let capabilities: Vec<String> = names.collect();
    let files = finish::file_limit();
    let (user, process) = (&payload.identity, &mut config["process"]);
    process["user"] = json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups});
    process["args"] = json!(payload.args);
    process["env"] = json!(payload.env);
    process["cwd"] = json!(if payload.cwd.as_os_str().is_empty() { Path::new("/") } else { &payload.cwd });
    process["noNewPrivileges"] = json!(payload.no_new_privileges);
    process["capabilities"] = json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": files.current.unwrap_or(u64::MAX), "hard": files.maximum.unwrap_or(u64::MAX)}]);
    if let Some(program) = &payload.seccomp {
        // A crun that does not know the annotation applies the profile, under which nothing runs.
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"});
        config["annotations"] = json!({"run.oci.seccomp_bpf_data": BASE64.encode(program)});
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        let kind = if payload.cgroups == [""] { "cgroup2" } else { "cgroup" };
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": kind, "source": "cgroup",
                           "options": ["nosuid", "noexec", "nodev", "ro"]}));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_found() {
        let log = "{\"msg\":\"first\",\"level\":\"error\"}\n{\"msg\":\"beside it\",\"level\":\"warning\"}\nno json\n";
        assert_eq!(last_error(log).as_deref(), Some("first"));
        assert_eq!(last_error(""), None);
    }
}
