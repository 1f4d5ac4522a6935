// What a hostile program tries from inside a container, one trick a word. Each prints what came of it, a line a try;
// the tests judge. Linked statically, so that it runs in any image.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what, long result) {
    printf("%s %s\n", what, result < 0 ? strerrorname_np(errno) : "ok");
    fflush(stdout);
}

// The verdict of the container's filter on every system call, without doing any: a filter of our own asks the tracer
// about all that the container's lets pass, and yields to it where it refuses.
static int sweep(int last) {
    struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE)};
    struct sock_fprog filter = {1, all};
    for (int number = 0; number <= last; number++) {
        pid_t child = fork();
        if (child == 0) {
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            raise(SIGSTOP);
            if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) _exit(255);
            long result = syscall(number, 0, 0, 0, 0, 0, 0);
            syscall(SYS_exit_group, result == -1 ? errno : 0);
        }
        int status;
        waitpid(child, &status, 0);
        ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL);
        const char *verdict = "unknown";
        for (ptrace(PTRACE_CONT, child, 0, 0); waitpid(child, &status, 0) > 0; ptrace(PTRACE_CONT, child, 0, 0)) {
            if (WIFEXITED(status) || WIFSIGNALED(status)) break;
            if (status >> 8 != (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) continue;
            struct user_regs_struct now;
            ptrace(PTRACE_GETREGS, child, 0, &now);
            if ((int)now.orig_rax == number && now.rdi == 0) verdict = "allowed";
            else if (now.orig_rax == SYS_exit_group) verdict = strerrorname_np((int)now.rdi);
            kill(child, SIGKILL);
        }
        printf("%d %s\n", number, verdict);
    }
    return 0;
}

// Ways to the host's files, processes and kernel.
static int reach(pid_t host) {
    struct { struct file_handle head; char bytes[128]; } root = {.head.handle_bytes = 128};
    int mount;
    say("name_to_handle_at", name_to_handle_at(AT_FDCWD, "/tmp", &root.head, &mount, 0));
    int directory = open("/", O_RDONLY | O_DIRECTORY);
    say("open_by_handle_at", open_by_handle_at(directory, &root.head, O_RDONLY));
    char bytes[8];
    struct iovec own = {bytes, 8}, other = {bytes, 8};
    say("ptrace-host", ptrace(PTRACE_ATTACH, host, 0, 0));
    say("read-host", process_vm_readv(host, &own, 1, &other, 1, 0));
    say("signal-host", kill(host, 0));
    say("pidfd-host", syscall(SYS_pidfd_open, host, 0));
    say("init_module", syscall(SYS_init_module, bytes, 8, ""));
    say("finit_module", syscall(SYS_finit_module, 0, "", 0));
    say("delete_module", syscall(SYS_delete_module, "x", 0));
    say("bpf", syscall(SYS_bpf, 0, bytes, 8));
    say("perf_event_open", syscall(SYS_perf_event_open, bytes, 0, -1, -1, 0));
    say("keyctl", syscall(SYS_keyctl, 0, -3, 1));
    say("add_key", syscall(SYS_add_key, "user", "x", bytes, 8, -3));
    say("request_key", syscall(SYS_request_key, "user", "x", "", -3));
    say("userfaultfd", syscall(SYS_userfaultfd, 0));
    say("io_uring_setup", syscall(SYS_io_uring_setup, 1, bytes));
    say("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    say("clone3-user", syscall(SYS_clone3, (unsigned long[11]){0x10000000}, 88));
    say("socket-crypto", syscall(SYS_socket, 38L, 5L, 0L));
    say("socket-hypervisor", syscall(SYS_socket, 40L, 1L, 0L));
    say("socket-hypervisor-hidden", syscall(SYS_socket, 1L << 32 | 40, 1L, 0L));
    return 0;
}

// CVE-2019-5736: writes to a program that it has taken hold of. Asked to truncate, the kernel looks at the mount before it
// looks whether the file is busy, which would be a question of patience alone.
static int overwrite(int program) {
    char path[64];
    struct stat held;
    if (fstat(program, &held)) return 1;
    printf("caught %lu\n", held.st_ino);
    snprintf(path, sizeof path, "/proc/self/fd/%d", program);
    say("write-to-runtime", open(path, O_WRONLY | O_TRUNC));
    return 0;
}

// Exchanges two names in a directory, again and again: a directory and a symlink that leads elsewhere.
static int swap(const char *one, const char *other, long times) {
    for (long n = 0; times == 0 || n < times; n++)
        if (renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)) return say("swap", -1), 1;
    say("swap", 0);
    return 0;
}

int main(int count, char **words) {
    const char *trick = count > 1 ? words[1] : "";
    if (!strcmp(trick, "sweep") && count == 3) return sweep(atoi(words[2]));
    if (!strcmp(trick, "reach") && count == 3) return reach(atoi(words[2]));
    if (!strcmp(trick, "overwrite") && count == 3) return overwrite(atoi(words[2]));
    if (!strcmp(trick, "swap") && count == 5) return swap(words[2], words[3], atol(words[4]));
    fprintf(stderr, "usage: probe sweep LAST | reach PID | overwrite FD | swap NAME NAME TIMES\n");
    return 2;
}
