// What Swift cannot call: variadic functions, macros with arguments, and system calls that glibc 2.36 does not
// wrap. Each function is the system call and nothing else; on failure it returns -1 with errno set.
#ifndef CLINUX_H
#define CLINUX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/// clone3(2) used as fork: the child returns 0 on a copy of the caller's stack. Only from a single-threaded process.
long linux_clone3(struct clone_args *arguments, size_t size);
/// openat2(2).
int linux_openat2(int directory, const char *path, const struct open_how *how);
/// close_range(2).
int linux_close_range(unsigned int first, unsigned int last, unsigned int flags);
/// execveat(2).
int linux_execveat(int directory, const char *path, char *const argv[], char *const envp[], int flags);
/// prctl(2) with its four arguments.
int linux_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
/// ioctl(2) with a pointer argument.
int linux_ioctl_pointer(int descriptor, unsigned long request, void *argument);
/// ioctl(2) with an integer argument.
int linux_ioctl_value(int descriptor, unsigned long request, unsigned long argument);
/// futex(2), FUTEX_WAIT_PRIVATE: sleeps while the word is `expected`, at most `timeout` (none for NULL).
int linux_futex_wait(const uint32_t *word, uint32_t expected, const struct timespec *timeout);
/// futex(2), FUTEX_WAKE_PRIVATE.
int linux_futex_wake(const uint32_t *word, int count);
/// fcntl(2) with an integer argument.
int linux_fcntl(int descriptor, int command, long argument);
/// open(2) with a mode.
int linux_open(const char *path, int flags, unsigned int mode);
/// openat(2) with a mode.
int linux_openat(int directory, const char *path, int flags, unsigned int mode);
/// pivot_root(2).
int linux_pivot_root(const char *new_root, const char *put_old);
/// capset(2), version 3.
int linux_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable);
/// capget(2), version 3, of the calling thread.
int linux_capget(uint64_t *effective, uint64_t *permitted, uint64_t *inheritable);
/// seccomp(2).
int linux_seccomp(unsigned int operation, unsigned int flags, void *arguments);
/// mount_setattr(2), which glibc 2.36 declares but whose flags argument differs between headers.
int linux_mount_setattr(int directory, const char *path, unsigned int flags, struct mount_attr *attributes);
/// gettid(2).
pid_t linux_gettid(void);
/// setgroups(2), setresuid(2) and setresgid(2) of the calling thread only, without glibc's broadcast to all threads.
int linux_setgroups(size_t count, const gid_t *groups);
int linux_setresuid(uid_t real, uid_t effective, uid_t saved);
int linux_setresgid(gid_t real, gid_t effective, gid_t saved);
/// copy_file_range(2) and sendfile(2) by their own names in glibc need no wrapper; memfd_create(2) does for its flags.
int linux_memfd_create(const char *name, unsigned int flags);
/// personality(2).
int linux_personality(unsigned long persona);
/// environ(7), which Swift finds ambiguous.
char **linux_environment(void);
/// bpf(2), BPF_PROG_LOAD of a BPF_PROG_TYPE_CGROUP_DEVICE program of `count` instructions.
int linux_bpf_load_device_program(const uint64_t *instructions, unsigned int count);
/// bpf(2), BPF_PROG_ATTACH of such a program to an open cgroup v2 directory (BPF_F_ALLOW_MULTI).
int linux_bpf_attach_device_program(int cgroup, int program);
/// errno of the calling thread, for callers that must not rely on Swift's overlay (after clone3).
int linux_errno(void);
/// WIFEXITED and its companions.
int linux_wait_exited(int status);
int linux_wait_exit_status(int status);
int linux_wait_signalled(int status);
int linux_wait_signal(int status);

/// Starts a program in a session of its own with `descriptors[0...count-1]` as its descriptors 0 to count-1 and no others
/// (count is at most 8), default signals, and SIGKILL when the calling thread ends (PR_SET_PDEATHSIG) if
/// `dies_with_thread`. Built on vfork(2), so the parent may have threads. A failing execve(2) is an error of this call.
pid_t linux_spawn(
    const char *path, char *const arguments[], char *const environment[], const int *descriptors, int count,
    int dies_with_thread);

/// One frame's bytes with descriptors beside them (SCM_RIGHTS, unix(7)); descriptors may be NULL when count is 0.
ssize_t linux_send_with_descriptors(
    int socket, const void *bytes, size_t length, const int *descriptors, int count, int flags);
/// Receives bytes and at most `*count` descriptors (close-on-exec); on return `*count` is how many arrived and
/// `*truncated` is 1 when the control buffer was too small (MSG_CTRUNC).
ssize_t linux_receive_with_descriptors(
    int socket, void *bytes, size_t length, int *descriptors, int *count, int *truncated, int flags);

#endif
