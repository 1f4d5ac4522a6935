//! System calls that no safe crate wraps: the crate's only `unsafe`.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Which side of a [`fork`] this is.
pub enum Fork {
    /// The new process.
    Child,
    /// The caller, with the child's pid.
    Parent(i32),
}

/// Forks. Only for single-threaded processes: there the child may do whatever the parent might.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the helper never starts a thread, so no lock can be held by one that is gone in the child.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends the process at once: no destructors of what it shares with its parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from `first` on. Only in a forked child that owns nothing up there any more.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: integers only; the caller is a fresh child whose inherited owners are never dropped.
    check(unsafe { libc::close_range(first, u32::MAX, 0) }).map(drop)
}

/// CVE-2024-21626: a leaked directory descriptor lets a container out. Marks all from `first` close-on-exec.
pub fn seal_from(first: u32) -> io::Result<()> {
    // SAFETY: integers only, no memory; closes nothing now, so no owner loses its descriptor.
    check(unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) }).map(drop)
}

/// Duplicates `fd` to exactly `target`, closing what was there.
pub fn place(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fd` is open; `target` belongs to nobody in a fresh child, which is the only caller.
    check(unsafe { libc::dup3(fd.as_raw_fd(), target, libc::O_CLOEXEC) })?;
    // SAFETY: dup3 just made it, so this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(target) })
}

/// Default actions for all signals, whoever changed them before us, and an empty signal mask.
pub fn reset_signals() -> io::Result<()> {
    // Handler SIG_DFL, flags, restorer and mask all zero. The bare call, since libc refuses two of them.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` is as large as the kernel's sigaction; it installs no handler of ours. SIGKILL and
        // SIGSTOP are refused, which is as it should be.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &default, 0usize, 8usize) };
    }
    // SAFETY: `set` is initialised by sigemptyset before it is read.
    check(unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut())
    })
    .map(drop)
}

/// Ignores a signal.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN installs no handler of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Makes a detached mount (`open_tree` with `OPEN_TREE_CLONE`) read-only.
pub fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a valid empty C string and `attributes` outlives the call with its true size.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(ret as i32).map(drop)
}

/// Loads a classic BPF program as seccomp filter of this process.
pub fn load_seccomp(program: &[u8]) -> io::Result<()> {
    let (instructions, rest) = program.as_chunks::<8>();
    let len = u16::try_from(instructions.len()).ok().filter(|len| rest.is_empty() && *len > 0);
    let len = len.ok_or(io::ErrorKind::InvalidInput)?;
    let filters: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|i| libc::sock_filter {
            code: u16::from_ne_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        })
        .collect();
    let program = libc::sock_fprog { len, filter: filters.as_ptr().cast_mut() };
    // SAFETY: `program` points at `len` instructions that live until the call returns; the kernel verifies them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) } as i32).map(drop)
}

/// Attaches a `BPF_PROG_TYPE_CGROUP_DEVICE` program to a v2 cgroup, beside those that are there.
pub fn attach_device_program(group: BorrowedFd<'_>, program: &[[u8; 8]]) -> io::Result<()> {
    const LOAD: libc::c_long = 5;
    const ATTACH: libc::c_long = 8;
    const KIND: u32 = 15;
    const AT: u32 = 6;
    const BESIDE_OTHERS: u32 = 2;
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        instructions: u32,
        program: u64,
        license: u64,
        log: [u32; 4],
        version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    #[repr(C)]
    struct Attach {
        group: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let instructions = u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (program, license) = (program.as_ptr() as u64, c"".as_ptr() as u64);
    let load = Load { kind: KIND, instructions, program, license, attach_type: AT, ..Load::default() };
    // SAFETY: the program and the license outlive the call, which reads `load` to its size; the kernel verifies them.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, LOAD, &load, size_of::<Load>()) } as i32)?;
    // SAFETY: the call just made it, so this is its only owner.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach =
        Attach { group: group.as_raw_fd() as u32, program: fd.as_raw_fd() as u32, kind: AT, flags: BESIDE_OTHERS };
    // SAFETY: reads `attach` to its size.
    check(unsafe { libc::syscall(libc::SYS_bpf, ATTACH, &attach, size_of::<Attach>()) } as i32).map(drop)
}

/// The wait status of an ended process by its pidfd, once it was reaped by whoever is its parent.
/// `None` where the kernel does not tell (before Linux 6.15).
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const PIDFD_GET_INFO: libc::c_ulong = (3 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xff << 8) | 11;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..Default::default() };
    // SAFETY: the request number carries the size of `info`, which the kernel does not exceed.
    let ret = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &mut info) };
    (ret == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Sets the loopback link of this process's network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which `request` is.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &request) }).map(drop)
}

/// Waits for `owner`'s descriptor with tokio.
pub fn register<T: AsFd + AsRawFd>(owner: T) -> io::Result<tokio::io::unix::AsyncFd<T>> {
    // SAFETY: the callers' types (File, UnixStream) own one descriptor that never changes while they live.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(owner) }?)
}

/// Leaves the namespaces named by `CLONE_NEW…` flags for new ones.
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: namespaces only (never CLONE_FILES or CLONE_VM), so no memory or descriptor changes hands.
    check(unsafe { libc::unshare(flags) }).map(drop)
}
