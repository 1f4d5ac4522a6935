//! The helper: one small process per instance that starts containers, waits for them and writes their logs.
//!
//! It outlives the `rast` that started it, so that containers survive `rast`; when it dies itself, the
//! containers run on and the next helper adopts them. It never starts a thread: libcontainer forks, and
//! must not be called from a process with threads.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::PathBuf,
    process::ExitCode,
};

use rustix::mount::OpenTreeFlags;

use crate::{Error, Result, sys};

mod adopt;
mod container;
mod create;
mod exec;
mod journal;
mod keeper;
mod logs;
mod record;
mod sandbox;
mod serve;
mod worker;

pub use exec::resize;

/// The socket in the run directory on which a helper listens.
pub const SOCKET: &str = "helper.sock";
/// What a helper writes to its standard output once it listens.
pub const READY: &[u8] = b"ready\n";
/// Set in the environment of a helper that runs from a read-only mount.
const SEALED: &str = "RAST_HELPER_SEALED";

/// The helper's entry, to be called before any thread is started.
///
/// `args` are what follows the verb: `--dir RUN_DIR --instance NAME`. Ends only on an error, or when told.
pub fn main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let args: Vec<String> = args.into_iter().collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Standard error is `helper.log`; losing it must not matter.
            let _ = rustix::io::write(rustix::stdio::stderr(), format!("{}: {}\n", logs::now(), chain(&e)).as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

fn run(args: &[String]) -> Result<()> {
    let (dir, instance) = parse(args)?;
    if std::env::var_os(SEALED).is_none() {
        return seal().map_err(Error::io("run from a read-only mount"));
    }
    let name = c"rast-helper";
    rustix::thread::set_name(name).map_err(Error::io("set the process's name"))?;
    keeper::Keeper::open(&dir, instance)?.run()
}

fn parse(args: &[String]) -> Result<(PathBuf, String)> {
    let value = |flag: &str| args.iter().position(|a| a == flag).and_then(|at| args.get(at + 1));
    match (value("--dir"), value("--instance")) {
        (Some(dir), Some(instance)) => {
            crate::spec::check_id("instance", instance)?;
            Ok((dir.into(), instance.clone()))
        }
        _ => Err(Error::Helper("usage: helper --dir RUN_DIR --instance NAME".into())),
    }
}

/// CVE-2019-5736: a container's first process is this program until it becomes the image's, and could get
/// hold of our file through `/proc/self/exe` and overwrite it. So this process executes itself again from a
/// read-only mount that is in no mount namespace, where nobody can make it writable.
fn seal() -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let program = rustix::mount::open_tree(rustix::fs::CWD, "/proc/self/exe", flags)?;
    sys::make_read_only(program.as_fd())?;
    let argv = std::env::args_os().map(|a| CString::new(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let mut envp = vec![CString::new(format!("{SEALED}=1"))?];
    for kept in ["RUST_BACKTRACE", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(kept) {
            envp.push(CString::new([kept.as_bytes(), b"=", value.as_bytes()].concat())?);
        }
    }
    let Err(e) = nix::unistd::execveat(&program, c"", &argv, &envp, nix::fcntl::AtFlags::AT_EMPTY_PATH);
    Err(e.into())
}

/// Whether another process holds the instance's lock.
fn lock(path: &std::path::Path) -> Result<File> {
    let doing = || format!("lock {}", path.display());
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(Error::io(doing()))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Helper("another helper serves this instance".into())),
        Err(e) => Err(Error::io(doing())(e)),
    }
}
