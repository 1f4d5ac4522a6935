//! What runs before PID 1: finds the root that the command line names, opens it through dm-verity, hands over.

mod disks;
mod mapper;

use std::{convert::Infallible, fs, io, os::unix::process::CommandExt as _, path::Path, process::Command};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount, mount_move, unmount},
    process::{chdir, chroot},
};

use crate::{
    modules::{self, Modules},
    slot::Slot,
    verity,
};

/// Why the machine cannot start. PID 1 then ends, which the kernel answers with a panic and a restart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line names no root.
    #[error("the kernel's command line has no {}=HASH:BLOCKS", verity::Root::PARAMETER)]
    Unnamed,
    /// The command line names no root in words that can be read.
    #[error("the kernel's command line: {}", verity::Root::PARAMETER)]
    Named(#[from] verity::BadRoot),
    /// A module did not load.
    #[error(transparent)]
    Modules(#[from] modules::Error),
    /// No disk holds the root.
    #[error("no disk or partition holds the root {0}, or the top of its hash tree is damaged; seen: {1}")]
    NoRoot(verity::Root, String),
    /// A system call failed.
    #[error("{0}")]
    System(String, #[source] io::Error),
}

const MODULES: &str = "/modules";
const ROOT: &str = "/root";
const INIT: &str = "/usr/bin/rast";

/// Starts the machine; comes back only with a reason why it cannot.
pub fn main() -> Result<Infallible, Error> {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mount(kind, at, kind, MountFlags::NOSUID, None).map_err(system(format!("mount {at}")))?;
    }
    let line = fs::read_to_string("/proc/cmdline").map_err(system("read /proc/cmdline"))?;
    let root = verity::Root::on(&line).ok_or(Error::Unnamed)??;
    let modules = Modules::open(Path::new(MODULES))?;
    let disks = disks::Disks::open(&modules)?;
    modules.want(&verity::Root::MODULES)?;
    modules.want(&["fs-erofs"])?;
    let disk = disks.find(&root, Slot::on(&line))?;
    eprintln!("rastos: the root is on {disk}");
    let device = mapper::open(&root, &disk).map_err(system(format!("open {disk} through dm-verity")))?;
    mount(&device, ROOT, "erofs", MountFlags::RDONLY, None).map_err(system(format!("mount {device}")))?;
    hand_over().map_err(system(format!("hand over to {INIT}")))
}

fn hand_over() -> io::Result<Infallible> {
    for at in ["/dev", "/proc"] {
        mount_move(at, format!("{ROOT}{at}"))?;
    }
    unmount("/sys", UnmountFlags::empty())?;
    // What is left of the initrd would stay in memory for good.
    fs::remove_dir_all(MODULES)?;
    fs::remove_file("/init")?;
    chdir(ROOT)?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")?;
    let mut init = Command::new(INIT);
    Err(init.arg0("rast").arg("init").env_clear().env("PATH", "/usr/bin:/usr/sbin").exec())
}

fn system<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Error {
    move |error| Error::System(doing.into(), error.into())
}
