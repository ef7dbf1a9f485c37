// What a build that means harm would try. Prints each attempt and the error it got, or `allowed`. Compiled by the tests that
// run it in a sandbox; $1 and $2 are a TCP port and an abstract socket of the host.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

static void tell(const char *what, long result) {
  if (result >= 0) {
    printf("%s: allowed\n", what);
    return;
  }
  const char *name = errno == ENOSYS         ? "ENOSYS"
                     : errno == EPERM        ? "EPERM"
                     : errno == EINVAL       ? "EINVAL"
                     : errno == ENOTSUP      ? "ENOTSUP"
                     : errno == EAFNOSUPPORT ? "EAFNOSUPPORT"
                     : errno == ECONNREFUSED ? "ECONNREFUSED"
                                             : strerror(errno);
  printf("%s: %s\n", what, name);
}

#define CALL(name, ...) tell(#name, syscall(SYS_##name, __VA_ARGS__))

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  CALL(keyctl, 0, -3, 0, 0, 0); // KEYCTL_GET_KEYRING_ID of the session
  CALL(add_key, "user", "x", "x", 1, -4);
  CALL(request_key, "user", "x", 0, -4);
  CALL(bpf, 0, 0, 0);
  CALL(perf_event_open, 0, 0, -1, -1, 0);
  CALL(userfaultfd, 0);
  CALL(io_uring_setup, 1, 0);
  CALL(mount, "none", "/tmp", "tmpfs", 0, 0);
  CALL(fsopen, "tmpfs", 0);
  CALL(open_tree, -100, "/", 0);
  CALL(setns, 0, 0);
  CALL(kexec_load, 0, 0, 0, 0);
  CALL(syslog, 10, 0, 0);

  int file = open("file", O_CREAT | O_RDWR, 0755);
  tell("fchmod 755", fchmod(file, 0755));
  tell("fchmod 4755", fchmod(file, 04755));
  tell("fchmod 2755", fchmod(file, 02755));
  tell("chmod 4755", chmod("file", 04755));
  tell("fchmodat 4755", syscall(SYS_fchmodat, AT_FDCWD, "file", 04755));
  tell("fchmodat2 4755", syscall(452, AT_FDCWD, "file", 04755, 0));
  tell("open 4755", open("other", O_CREAT | O_RDWR, 04755));
  tell("open with a mode that means nothing", open("file", O_RDWR, 04755));
  tell("setxattr", setxattr("file", "user.x", "x", 1, 0));
  tell("fsetxattr capability", fsetxattr(file, "security.capability", "x", 1, 0));

  tell("vsock", socket(40, SOCK_STREAM, 0));
  tell("kernel crypto", socket(38, SOCK_SEQPACKET, 0));
  tell("netlink", socket(AF_NETLINK, SOCK_RAW, 0));

  struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
  tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int s = socket(AF_INET, SOCK_STREAM, 0);
  tell("host's listener", connect(s, (struct sockaddr *)&tcp, sizeof tcp));

  struct sockaddr_un un = {.sun_family = AF_UNIX};
  size_t length = strlen(argv[2]);
  memcpy(un.sun_path + 1, argv[2], length);
  s = socket(AF_UNIX, SOCK_STREAM, 0);
  socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 + length;
  tell("host's abstract socket", connect(s, (struct sockaddr *)&un, size));

  tell("terminal", open("/dev/tty", O_RDWR));
  int pty = open("/dev/ptmx", O_RDWR | O_NOCTTY);
  tell("pty", pty);
  tell("TIOCSTI", ioctl(pty, 0x5412, "x"));
  tell("setuid", setuid(0));
  return 0;
}
