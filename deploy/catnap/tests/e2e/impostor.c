/* What replaces the guest agent in a sandbox that turned against its host: pid 1, once the sandbox boots from its disk.
 *
 * It is polite on the host's port until it was told what the guest is. From then on whatever it says is wrong, in a way
 * that changes with each connection; what callers send it, it answers wrongly from the beginning.
 */
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RELAY = 1024, HOST = 1025, AGENT = 49983 };

static void say(int fd, const char *bytes, size_t len) {
  while (len > 0) {
    ssize_t n = write(fd, bytes, len);
    if (n <= 0) return; /* the host has heard enough */
    bytes += n;
    len -= (size_t)n;
  }
}

/* `piece` again and again, so many bytes. */
static void repeat(int fd, const char *piece, size_t bytes) {
  for (size_t said = 0; said < bytes; said += strlen(piece)) say(fd, piece, strlen(piece));
}

static void lie(int fd, unsigned kind) {
  static char noise[4096];
  const char *head = "";
  switch (kind % 6) {
    case 0: /* no HTTP, and no answer of a relay */
      for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)(0x80 | rand());
      say(fd, noise, sizeof noise);
      return;
    case 1: /* a head without an end */
      say(fd, "HTTP/1.1 200 OK\r\nx: ", 20);
      repeat(fd, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 1 << 17);
      return;
    case 2: /* less than it promised */
      head = "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nabc";
      break;
    case 3: /* chunks that are none */
      head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc";
      break;
    case 4: /* two answers to one question, and a length that says two things */
      head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
      break;
    default: /* nothing */
      break;
  }
  say(fd, head, strlen(head));
}

static int listens(unsigned port) {
  struct sockaddr_vm here = {.svm_family = AF_VSOCK, .svm_port = port, .svm_cid = VMADDR_CID_ANY};
  int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) != 0 || listen(fd, 64) != 0) _exit(1);
  return fd;
}

int main(void) {
  struct pollfd doors[3] = {{.fd = listens(HOST), .events = POLLIN},
                            {.fd = listens(RELAY), .events = POLLIN},
                            {.fd = listens(AGENT), .events = POLLIN}};
  static char heard[65536];
  int told = 0;
  signal(SIGPIPE, SIG_IGN);
  for (unsigned kind = 0;;) {
    if (poll(doors, 3, -1) < 0) continue;
    for (int i = 0; i < 3; i++) {
      if (!(doors[i].revents & POLLIN)) continue;
      int fd = accept(doors[i].fd, NULL, NULL);
      if (fd < 0) continue;
      /* The host's questions are short: one look is enough. */
      ssize_t len = read(fd, heard, sizeof heard - 1);
      heard[len < 0 ? 0 : len] = 0;
      if (i == 0 && !told) {
        const char *fine = "HTTP/1.1 204 No Content\r\n\r\n";
        told = strncmp(heard, "POST /init", 10) == 0;
        say(fd, fine, strlen(fine));
      } else {
        lie(fd, kind++);
      }
      close(fd);
    }
  }
}
