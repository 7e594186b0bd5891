#include "CLinux.h"

#include <linux/bpf.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>

long linux_clone3(struct clone_args *arguments, size_t size) { return syscall(SYS_clone3, arguments, size); }

int linux_openat2(int directory, const char *path, const struct open_how *how) {
  return (int)syscall(SYS_openat2, directory, path, how, sizeof(*how));
}

int linux_close_range(unsigned int first, unsigned int last, unsigned int flags) {
  return (int)syscall(SYS_close_range, first, last, flags);
}

int linux_execveat(int directory, const char *path, char *const argv[], char *const envp[], int flags) {
  return (int)syscall(SYS_execveat, directory, path, argv, envp, flags);
}

int linux_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
  return prctl(option, a, b, c, d);
}

int linux_ioctl_pointer(int descriptor, unsigned long request, void *argument) {
  return ioctl(descriptor, request, argument);
}

int linux_ioctl_value(int descriptor, unsigned long request, unsigned long argument) {
  return ioctl(descriptor, request, argument);
}

int linux_fcntl(int descriptor, int command, long argument) { return fcntl(descriptor, command, argument); }

int linux_open(const char *path, int flags, unsigned int mode) { return open(path, flags, mode); }

int linux_openat(int directory, const char *path, int flags, unsigned int mode) {
  return openat(directory, path, flags, mode);
}

int linux_pivot_root(const char *new_root, const char *put_old) {
  return (int)syscall(SYS_pivot_root, new_root, put_old);
}

int linux_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {
      {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
      {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
  };
  return (int)syscall(SYS_capset, &header, data);
}

int linux_capget(uint64_t *effective, uint64_t *permitted, uint64_t *inheritable) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
  int result = (int)syscall(SYS_capget, &header, data);
  *effective = data[0].effective | ((uint64_t)data[1].effective << 32);
  *permitted = data[0].permitted | ((uint64_t)data[1].permitted << 32);
  *inheritable = data[0].inheritable | ((uint64_t)data[1].inheritable << 32);
  return result;
}

int linux_seccomp(unsigned int operation, unsigned int flags, void *arguments) {
  return (int)syscall(SYS_seccomp, operation, flags, arguments);
}

int linux_mount_setattr(int directory, const char *path, unsigned int flags, struct mount_attr *attributes) {
  return (int)syscall(SYS_mount_setattr, directory, path, flags, attributes, sizeof(*attributes));
}

pid_t linux_gettid(void) { return (pid_t)syscall(SYS_gettid); }

int linux_setgroups(size_t count, const gid_t *groups) { return (int)syscall(SYS_setgroups, count, groups); }

int linux_setresuid(uid_t real, uid_t effective, uid_t saved) {
  return (int)syscall(SYS_setresuid, real, effective, saved);
}

int linux_setresgid(gid_t real, gid_t effective, gid_t saved) {
  return (int)syscall(SYS_setresgid, real, effective, saved);
}

int linux_memfd_create(const char *name, unsigned int flags) { return (int)syscall(SYS_memfd_create, name, flags); }

int linux_personality(unsigned long persona) { return (int)syscall(SYS_personality, persona); }

char **linux_environment(void) { return environ; }

int linux_bpf_load_device_program(const uint64_t *instructions, unsigned int count) {
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof(attributes));
  attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attributes.insns = (uint64_t)(uintptr_t)instructions;
  attributes.insn_cnt = count;
  attributes.license = (uint64_t)(uintptr_t)"Apache-2.0";
  return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes));
}

int linux_bpf_attach_device_program(int cgroup, int program) {
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof(attributes));
  attributes.target_fd = (uint32_t)cgroup;
  attributes.attach_bpf_fd = (uint32_t)program;
  attributes.attach_type = BPF_CGROUP_DEVICE;
  attributes.attach_flags = BPF_F_ALLOW_MULTI;
  return (int)syscall(SYS_bpf, BPF_PROG_ATTACH, &attributes, sizeof(attributes));
}

int linux_errno(void) { return errno; }

int linux_wait_exited(int status) { return WIFEXITED(status); }
int linux_wait_exit_status(int status) { return WEXITSTATUS(status); }
int linux_wait_signalled(int status) { return WIFSIGNALED(status); }
int linux_wait_signal(int status) { return WTERMSIG(status); }

enum { maximum_descriptors = 253 };  // SCM_MAX_FD, unix(7)

ssize_t linux_send_with_descriptors(
    int socket, const void *bytes, size_t length, const int *descriptors, int count, int flags) {
  struct iovec vector = {(void *)bytes, length};
  union {
    char bytes[CMSG_SPACE(sizeof(int) * maximum_descriptors)];
    struct cmsghdr alignment;
  } control;
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (count > maximum_descriptors) {
    errno = EINVAL;
    return -1;
  }
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
    memcpy(CMSG_DATA(header), descriptors, sizeof(int) * (size_t)count);
  }
  return sendmsg(socket, &message, flags | MSG_NOSIGNAL);
}

ssize_t linux_receive_with_descriptors(
    int socket, void *bytes, size_t length, int *descriptors, int *count, int *truncated, int flags) {
  struct iovec vector = {bytes, length};
  union {
    char bytes[CMSG_SPACE(sizeof(int) * maximum_descriptors)];
    struct cmsghdr alignment;
  } control;
  struct msghdr message = {
      .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
  int capacity = *count;
  int received = 0;
  *count = 0;
  *truncated = 0;
  ssize_t result = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  if (result < 0) return result;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int carried = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    const int *source = (const int *)(void *)CMSG_DATA(header);
    for (int index = 0; index < carried; index++) {
      int descriptor;
      memcpy(&descriptor, source + index, sizeof(int));
      if (received < capacity) {
        descriptors[received++] = descriptor;
      } else {
        close(descriptor);
        *truncated = 1;
      }
    }
  }
  if (message.msg_flags & MSG_CTRUNC) *truncated = 1;
  *count = received;
  return result;
}

// In the child of vfork(2): only system calls, and nothing that the parent would see changed in memory but `failure`.
static void become_program(
    const char *path, char *const arguments[], char *const environment[], const int *descriptors, int count,
    pid_t death_of, volatile int *failure) {
  int high[8];
  setsid();
  if (death_of != 0) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) goto fail;
    if (getppid() != death_of) _exit(127);
  }
  for (int i = 0; i < count; i++) {
    high[i] = fcntl(descriptors[i], F_DUPFD_CLOEXEC, 16);
    if (high[i] < 0) goto fail;
  }
  for (int i = 0; i < count; i++)
    if (dup2(high[i], i) < 0) goto fail;
  if (syscall(SYS_close_range, (unsigned int)count, ~0U, 0) != 0) goto fail;
  for (int number = 1; number < NSIG; number++)
    if (number != SIGKILL && number != SIGSTOP) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execve(path, arguments, environment);
fail:
  *failure = errno;
  _exit(127);
}

pid_t linux_spawn(
    const char *path, char *const arguments[], char *const environment[], const int *descriptors, int count,
    int dies_with_thread) {
  volatile int failure = 0;
  sigset_t all, before;
  if (count > 8) {
    errno = EINVAL;
    return -1;
  }
  pid_t own = dies_with_thread ? getpid() : 0;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t child = vfork();
  if (child == 0) become_program(path, arguments, environment, descriptors, count, own, &failure);
  int spawn_errno = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (child < 0) {
    errno = spawn_errno;
    return -1;
  }
  if (failure != 0) {
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    errno = failure;
    return -1;
  }
  return child;
}

int linux_futex_wait(const uint32_t *word, uint32_t expected, const struct timespec *timeout) {
  return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout, NULL, 0);
}

int linux_futex_wake(const uint32_t *word, int count) {
  return (int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}
