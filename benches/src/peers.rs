//! The peers, from Debian's packages, set up by `scripts/bench`: crun on a bundle, podman with its own storage.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// The directory of this run.
pub fn dir() -> Result<PathBuf> {
    Ok(std::env::var_os("RAST_BENCH_DIR").context("RAST_BENCH_DIR is set by scripts/bench")?.into())
}

/// `crun` on state of its own. Its bundle has the root and the command of our pods.
pub fn crun(args: &[&str]) -> Result<Command> {
    let dir = dir()?;
    let mut command = Command::new("crun");
    command.arg("--root").arg(dir.join("crun")).args(args).current_dir(dir.join("bundle"));
    Ok(command)
}

/// `podman` on storage of its own, in a network namespace of its own, so that its bridge and its rules go with it.
pub fn podman(args: &[&str]) -> Result<Command> {
    podman_in(&dir()?.join("storage"), args)
}

/// `podman` on this storage.
pub fn podman_in(storage: &Path, args: &[&str]) -> Result<Command> {
    let mut command = Command::new(dir()?.join("podman"));
    command.arg("--root").arg(storage).args(args);
    Ok(command)
}

/// How long `command` takes, which must succeed. A container that it leaves behind keeps its standard error: a file, for
/// the end of a pipe would not come.
pub fn time(mut command: Command) -> Result<Duration> {
    let said = dir()?.join("said");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
    let began = Instant::now();
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    let took = began.elapsed();
    ensure!(status.success(), "{command:?}: {}", fs::read_to_string(said)?.trim());
    Ok(took)
}
