//! The steps of a process: its system calls that change something outside it. Followed by ptrace, so that the program
//! tried is the one that ships, and no step can be forgotten.

use std::{
    collections::HashSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};

/// System calls that are steps, whatever their arguments.
const CHANGES: &[(libc::c_long, &str)] = &[
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_mknodat, "mknodat"),
    (libc::SYS_rmdir, "rmdir"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_link, "link"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_symlink, "symlink"),
    (libc::SYS_symlinkat, "symlinkat"),
    (libc::SYS_chmod, "chmod"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fchmodat, "fchmodat"),
    (libc::SYS_chown, "chown"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_fchownat, "fchownat"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_syncfs, "syncfs"),
    (libc::SYS_pwrite64, "pwrite"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_mount_setattr, "mount_setattr"),
    (libc::SYS_pivot_root, "pivot_root"),
    (libc::SYS_chroot, "chroot"),
    (libc::SYS_unshare, "unshare"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_fork, "fork"),
    (libc::SYS_vfork, "vfork"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_execveat, "execveat"),
    (libc::SYS_kill, "kill"),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
    (libc::SYS_exit_group, "exit"),
];

/// Stopped because someone asked, not because of a system call or a signal (`ptrace(2)`).
const EVENT_STOP: i32 = 128;

/// A process whose steps are counted.
pub struct Steps {
    process: Pid,
    over: Arc<AtomicBool>,
    tracer: JoinHandle<Seen>,
}

/// What was seen of a process.
#[derive(Debug)]
pub struct Seen {
    /// Its steps, and those of the children that it forked.
    pub steps: Vec<&'static str>,
    /// Whether it was killed at the last of them, which it did not do any more.
    pub killed: bool,
}

impl Steps {
    /// Follows a process from now on, with children that are still its own program if `forks`; kills it (and no child)
    /// when it is about to do its `fatal`th step.
    pub fn follow(pid: i32, forks: bool, fatal: Option<usize>) -> Self {
        let process = Pid::from_raw(pid);
        let over = Arc::new(AtomicBool::new(false));
        let (ready, attached) = std::sync::mpsc::channel();
        let tracer = std::thread::spawn({
            let over = over.clone();
            // Only the thread that attached may control; its end lets go of all.
            move || {
                let mut options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
                if forks {
                    options |= Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACEEXEC;
                }
                attach(process, options);
                ready.send(()).expect("someone waits");
                let mut tracer =
                    Tracer { process, fatal, over, seen: Seen { steps: vec![], killed: false }, held: None };
                while tracer.step() {}
                tracer.seen
            }
        });
        attached.recv().expect("it can be followed");
        Self { process, over, tracer }
    }

    /// Whether it has been killed.
    pub fn ended(&self) -> bool {
        self.tracer.is_finished()
    }

    /// Lets go of it.
    pub fn end(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        // Something that the tracer sees; rast takes no notice of it.
        let _gone_already = kill(self.process, Signal::SIGWINCH);
        self.tracer.join().expect("the tracer ends")
    }
}

/// Seizes all threads there are; those to come are by `options`.
fn attach(process: Pid, options: Options) {
    let mut known = HashSet::new();
    loop {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten();
        let tasks: Vec<i32> = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
        let new: Vec<i32> = tasks.into_iter().filter(|task| known.insert(*task)).collect();
        if new.is_empty() {
            return;
        }
        for task in new.into_iter().map(Pid::from_raw) {
            // Ended, or come by inheritance: either is fine.
            if ptrace::seize(task, options).is_ok() {
                let _ended = ptrace::interrupt(task);
            }
        }
    }
}

struct Tracer {
    process: Pid,
    fatal: Option<usize>,
    over: Arc<AtomicBool>,
    seen: Seen,
    /// A child at the fatal step, which goes on once the process is dead.
    held: Option<Pid>,
}

impl Tracer {
    /// Handles one event; false when there is nothing to follow any more.
    fn step(&mut self) -> bool {
        let own = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        // Only looked at: how `rast` ended is for the one who started it to learn.
        let peek = own | WaitPidFlag::WNOWAIT | WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED;
        let Ok(next) = waitid(Id::All, peek) else { return false };
        let dead = matches!(next, WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == self.process);
        if dead {
            if let Some(child) = self.held.take() {
                let _killed_meanwhile = ptrace::syscall(child, None);
            }
            return false;
        }
        let Some(pid) = next.pid() else { return true };
        let Ok(status) = waitpid(pid, Some(own)) else { return true };
        if self.over.load(Ordering::Relaxed) {
            return false;
        }
        let signal = match status {
            WaitStatus::PtraceSyscall(pid) if self.is_fatal(pid) => {
                self.seen.killed = true;
                kill(self.process, Signal::SIGKILL).expect("it lives");
                self.held = Some(pid);
                return true;
            }
            // It has become another program: a container's.
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                let _killed_meanwhile = ptrace::detach(pid, None);
                return true;
            }
            WaitStatus::PtraceEvent(_, signal, EVENT_STOP) if signal != Signal::SIGTRAP => Some(signal),
            WaitStatus::Stopped(_, signal) => Some(signal),
            _ => None,
        };
        // It may have been killed meanwhile.
        let _ended = ptrace::syscall(pid, signal.filter(|signal| *signal != Signal::SIGTRAP));
        true
    }

    /// Counts a step; whether it is the fatal one.
    fn is_fatal(&mut self, pid: Pid) -> bool {
        let Some(name) = entered(pid) else { return false };
        self.seen.steps.push(name);
        !self.seen.killed && Some(self.seen.steps.len()) == self.fatal
    }
}

/// The step that a task is about to do, if it is one.
fn entered(task: Pid) -> Option<&'static str> {
    let call = ptrace::getregs(task).ok()?;
    // What the kernel puts there before a call, and only then.
    if call.rax as i64 != -(Errno::ENOSYS as i64) {
        return None;
    }
    let number = call.orig_rax as libc::c_long;
    let creates = |flags: u64| flags & libc::O_CREAT as u64 != 0;
    match number {
        libc::SYS_open if creates(call.rsi) => Some("open"),
        libc::SYS_openat if creates(call.rdx) => Some("openat"),
        // Eight bytes wake another thread.
        libc::SYS_write if call.rdx != 8 => Some("write"),
        _ => CHANGES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name),
    }
}
