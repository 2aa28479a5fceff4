/* Replaces the guest agent as pid 1 of a sandbox that boots from its disk.
 *
 * On the host port it responds correctly up to the first `/init`, so that the boot succeeds. All other responses are
 * malformed, differently for each connection.
 */
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RELAY = 1024, HOST = 1025, AGENT = 49983 };

static void write_all(int fd, const char *bytes, size_t len) {
  while (len > 0) {
    ssize_t n = write(fd, bytes, len);
    if (n <= 0) return; /* the host has closed the connection */
    bytes += n;
    len -= (size_t)n;
  }
}

/* Writes `piece` repeatedly, `bytes` bytes or more. */
static void repeat(int fd, const char *piece, size_t bytes) {
  for (size_t written = 0; written < bytes; written += strlen(piece)) write_all(fd, piece, strlen(piece));
}

static void send_malformed(int fd, unsigned kind) {
  static char noise[4096];
  const char *head = "";
  switch (kind % 6) {
    case 0: /* neither HTTP nor a relay reply */
      for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)(0x80 | rand());
      write_all(fd, noise, sizeof noise);
      return;
    case 1: /* an unterminated head */
      write_all(fd, "HTTP/1.1 200 OK\r\nx: ", 20);
      repeat(fd, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 1 << 17);
      return;
    case 2: /* a body shorter than its length */
      head = "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nabc";
      break;
    case 3: /* an invalid chunk size */
      head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc";
      break;
    case 4: /* contradicting lengths, and a second response */
      head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
      break;
    default: /* no bytes */
      break;
  }
  write_all(fd, head, strlen(head));
}

static int listen_on(unsigned port) {
  struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_port = port, .svm_cid = VMADDR_CID_ANY};
  int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 64) != 0) _exit(1);
  return fd;
}

int main(void) {
  struct pollfd listeners[3] = {{.fd = listen_on(HOST), .events = POLLIN},
                                {.fd = listen_on(RELAY), .events = POLLIN},
                                {.fd = listen_on(AGENT), .events = POLLIN}};
  static char request[65536];
  int initialized = 0;
  signal(SIGPIPE, SIG_IGN);
  for (unsigned kind = 0;;) {
    if (poll(listeners, 3, -1) < 0) continue;
    for (int i = 0; i < 3; i++) {
      if (!(listeners[i].revents & POLLIN)) continue;
      int fd = accept(listeners[i].fd, NULL, NULL);
      if (fd < 0) continue;
      /* The host sends its requests in one write. */
      ssize_t len = read(fd, request, sizeof request - 1);
      request[len < 0 ? 0 : len] = 0;
      if (i == 0 && !initialized) {
        const char *response = "HTTP/1.1 204 No Content\r\n\r\n";
        initialized = strncmp(request, "POST /init", 10) == 0;
        write_all(fd, response, strlen(response));
      } else {
        send_malformed(fd, kind++);
      }
      close(fd);
    }
  }
}
