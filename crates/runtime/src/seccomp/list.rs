//! The lists behind the default filter.

use rustix::thread::CapabilitySet;

/// Calls that programs need and that touch only what a process already holds or what other rules guard.
#[rustfmt::skip]
pub const ALLOWED: &[&str] = &[
    // files and descriptors
    "access", "chdir", "chmod", "chown", "chown32", "close", "close_range", "copy_file_range", "creat", "dup", "dup2",
    "dup3", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fchdir", "fchmod", "fchmodat",
    "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock",
    "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate",
    "ftruncate64", "futimesat", "getcwd", "getdents", "getdents64", "getxattr", "ioctl", "lchown", "lchown32",
    "lgetxattr", "link", "linkat", "listxattr", "llistxattr", "_llseek", "lremovexattr", "lseek", "lsetxattr", "lstat",
    "lstat64", "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat", "open", "openat", "openat2",
    "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
    "readlink", "readlinkat", "readv", "removexattr", "rename", "renameat", "renameat2", "rmdir", "sendfile",
    "sendfile64", "setxattr", "splice", "stat", "stat64", "statfs", "statfs64", "statx", "symlink", "symlinkat",
    "sync", "sync_file_range", "syncfs", "tee", "truncate", "truncate64", "umask", "unlink", "unlinkat", "utime",
    "utimensat", "utimensat_time64", "utimes", "vmsplice", "write", "writev",
    // waiting
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64",
    "io_setup", "io_submit", "_newselect", "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select",
    "signalfd", "signalfd4", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64",
    // memory
    "brk", "get_mempolicy", "madvise", "mbind", "membarrier", "memfd_create", "memfd_secret", "mincore", "mlock",
    "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mremap", "msync", "munlock", "munlockall", "munmap",
    "pkey_alloc", "pkey_free", "pkey_mprotect", "process_madvise", "process_mrelease", "remap_file_pages",
    "set_mempolicy", "set_mempolicy_home_node",
    // processes and threads
    "alarm", "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex",
    "futex_time64", "futex_waitv", "get_robust_list", "get_thread_area", "getcpu", "getegid", "getegid32", "geteuid",
    "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getitimer", "getpgid", "getpgrp", "getpid",
    "getppid", "getpriority", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage",
    "getsid", "gettid", "getuid", "getuid32", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "modify_ldt", "nanosleep", "pause", "pidfd_open",
    "pidfd_send_signal", "prctl", "prlimit64", "process_vm_readv", "process_vm_writev", "ptrace", "restart_syscall",
    "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "set_robust_list", "set_thread_area", "set_tid_address",
    "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32",
    "setitimer", "setpgid", "setpriority", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid",
    "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setuid", "setuid32", "sigaltstack",
    "sigprocmask", "sigreturn", "sysinfo", "tgkill", "times", "tkill", "ugetrlimit", "uname", "vfork", "wait4",
    "waitid", "waitpid",
    // clocks; setting them needs CAP_SYS_TIME
    "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
    "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "gettimeofday", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64",
    // talking
    "accept", "accept4", "bind", "connect", "getpeername", "getrandom", "getsockname", "getsockopt", "ipc", "listen",
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "recv", "recvfrom", "recvmmsg",
    "recvmmsg_time64", "recvmsg", "semctl", "semget", "semop", "semtimedop", "semtimedop_time64", "send", "sendmmsg",
    "sendmsg", "sendto", "setsockopt", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "socketcall", "socketpair",
];

/// Calls newer than the libseccomp of Debian 12, the same number on every architecture: cachestat, fchmodat2,
/// map_shadow_stack, futex_wake, futex_wait, futex_requeue, mseal, setxattrat, getxattrat, listxattrat, removexattrat.
pub const ALLOWED_BY_NUMBER: &[i32] = &[451, 452, 453, 454, 455, 456, 462, 463, 464, 465, 466];

/// Refused to everyone: they reach the kernel's own state, or are large and known as ways out.
#[rustfmt::skip]
pub const REFUSED: &[&str] = &[
    "_sysctl", "add_key", "create_module", "get_kernel_syms", "io_uring_enter",
    "io_uring_register", "io_uring_setup", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "migrate_pages",
    "move_pages", "nfsservctl", "pidfd_getfd", "query_module", "request_key", "swapoff", "swapon", "sysfs",
    "userfaultfd", "uselib", "ustat", "vm86", "vm86old",
];

/// Refused unless the container holds the capability that the kernel asks for anyway.
#[rustfmt::skip]
pub const WITH_CAPABILITY: &[(CapabilitySet, &[&str])] = &[
    (CapabilitySet::SYS_ADMIN, &[
        "fanotify_init", "fanotify_mark", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount",
        "mount_setattr", "move_mount", "open_tree", "pivot_root", "quotactl", "quotactl_fd", "setdomainname",
        "sethostname", "setns", "umount", "umount2",
    ]),
    (CapabilitySet::DAC_READ_SEARCH, &["open_by_handle_at"]),
    (CapabilitySet::SYS_BOOT, &["reboot"]),
    (CapabilitySet::SYS_CHROOT, &["chroot"]),
    (CapabilitySet::SYS_MODULE, &["delete_module", "finit_module", "init_module"]),
    (CapabilitySet::SYS_PACCT, &["acct"]),
    (CapabilitySet::SYS_RAWIO, &["ioperm", "iopl"]),
    (CapabilitySet::SYS_TIME, &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (CapabilitySet::SYS_TTY_CONFIG, &["vhangup"]),
    (CapabilitySet::SYSLOG, &["syslog"]),
    (CapabilitySet::BPF, &["bpf"]),
    (CapabilitySet::PERFMON, &["perf_event_open"]),
];
