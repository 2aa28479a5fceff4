/* The test program of guests: an HTTP server with state in memory, and commands that crash the guest.
 *
 *   probe serve PORT    serves HTTP, one request a connection; see serve()
 *   probe reboot        resets the machine (root)
 *   probe panic         crashes pid 1, which panics the kernel (root)
 *   probe stop-init     stops pid 1, and the agent with it (root)
 *
 * It is small and allocates no memory in advance: every page costs the guest a fault.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/user.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *operation) {
  perror(operation);
  exit(1);
}

static void write_all(int fd, const char *bytes, size_t len) {
  while (len > 0) {
    ssize_t n = write(fd, bytes, len);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return; /* the client has closed the connection */
    bytes += n;
    len -= (size_t)n;
  }
}

static void write_text(int fd, const char *text) { write_all(fd, text, strlen(text)); }

static void respond(int fd, const char *body) {
  char head[160];
  snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
           strlen(body));
  write_text(fd, head);
  write_text(fd, body);
}

static int64_t now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Reads the first line of a file. */
static void read_line(const char *path, char *line, size_t size) {
  int fd = open(path, O_RDONLY);
  ssize_t n = fd < 0 ? -1 : read(fd, line, size - 1);
  if (fd >= 0) close(fd);
  line[n < 0 ? 0 : n] = 0;
  line[strcspn(line, "\n")] = 0;
}

static void hex(const unsigned char *bytes, size_t len, char *text) {
  for (size_t i = 0; i < len; i++) sprintf(text + 2 * i, "%02x", bytes[i]);
}

/* --- state in memory --- */

#define BUFFER (8u << 20)
static uint64_t *buffer;
static long hits, ticks;

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static uint64_t checksum(void) {
  uint64_t sum = 0;
  for (size_t i = 0; i < BUFFER / 8; i++) sum = (sum ^ buffer[i]) * 0x100000001b3u + (sum >> 29);
  return sum;
}

static void fill(uint64_t seed) {
  buffer = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (buffer == MAP_FAILED) die("mmap");
  for (size_t i = 0; i < BUFFER / 8; i++) buffer[i] = next_random(&seed);
}

/* --- vector registers --- */

struct counters {
  volatile long checks, bad;
};
static struct counters *counters;
static int wide;

/* Holds a pattern in a vector register while other processes run, and checks it. */
static void check_register(struct counters *own, uint64_t pattern) {
  uint64_t in[4] = {pattern, ~pattern, pattern * 3, ~(pattern * 3)}, out[4];
  for (;;) {
    long spins = 5000000;
    if (wide)
      __asm__ volatile("vmovdqu %2,%%ymm7\n1: dec %0\n jnz 1b\n vmovdqu %%ymm7,%1\n"
                       : "+r"(spins), "=m"(out) : "m"(in) : "xmm7", "cc");
    else
      __asm__ volatile("movdqu %2,%%xmm7\n1: dec %0\n jnz 1b\n movdqu %%xmm7,%1\n"
                       : "+r"(spins), "=m"(out) : "m"(in) : "xmm7", "cc");
    if (memcmp(in, out, wide ? 32 : 16) != 0) own->bad++;
    own->checks++;
  }
}

static void start_register_checks(void) {
  __builtin_cpu_init();
  wide = __builtin_cpu_supports("avx2");
  counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (counters == MAP_FAILED) die("mmap");
  for (int i = 0; i < 2; i++) {
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) check_register(&counters[i], i == 0 ? 0x1111111111111111u : 0xaaaaaaaaaaaaaaaau);
  }
}

/* --- responses --- */

static void identity(char *text, size_t size) {
  struct utsname name;
  char machine[80], boot[80], urandom[65], random[65];
  unsigned char bytes[32];
  uname(&name);
  read_line("/etc/machine-id", machine, sizeof machine);
  read_line("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
  int fd = open("/dev/urandom", O_RDONLY);
  if (fd < 0 || read(fd, bytes, sizeof bytes) != sizeof bytes) die("urandom");
  close(fd);
  hex(bytes, sizeof bytes, urandom);
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) die("getrandom");
  hex(bytes, sizeof bytes, random);
  snprintf(text, size, "hostname=%s machine=%s boot=%s urandom=%s getrandom=%s pid=%d\n", name.nodename, machine, boot, urandom,
           random, getpid());
}

/* Sleeps on each clock, and reports the durations that the clocks measure. */
static void sleeps(long millis, char *text, size_t size) {
  struct timespec span = {millis / 1000, millis % 1000 * 1000000};
  int64_t began = now(CLOCK_MONOTONIC);
  if (clock_nanosleep(CLOCK_MONOTONIC, 0, &span, NULL) != 0) die("sleep");
  int64_t monotonic = now(CLOCK_MONOTONIC) - began;
  began = now(CLOCK_REALTIME);
  if (clock_nanosleep(CLOCK_REALTIME, 0, &span, NULL) != 0) die("sleep");
  snprintf(text, size, "monotonic=%ld realtime=%ld now=%ld\n", (long)(monotonic / 1000), (long)((now(CLOCK_REALTIME) - began) / 1000),
           (long)(now(CLOCK_REALTIME) / 1000));
}

/* Sends a number of chunks, one every `millis` milliseconds. */
static void stream(int fd, long pieces, long millis) {
  struct timespec span = {millis / 1000, millis % 1000 * 1000000};
  write_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
  for (long i = 0; i < pieces; i++) {
    write_text(fd, "6\r\npiece\n\r\n");
    nanosleep(&span, NULL);
  }
  write_text(fd, "0\r\n\r\n");
}

/* Serves a WebSocket with the example key of RFC 6455. Echoes short frames until a close frame. */
static void websocket(int fd) {
  write_text(fd, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
  unsigned char head[6], body[128];
  for (;;) {
    if (recv(fd, head, sizeof head, MSG_WAITALL) != sizeof head) return;
    size_t len = head[1] & 0x7f;
    if (len > 125 || recv(fd, body, len, MSG_WAITALL) != (ssize_t)len) return;
    for (size_t i = 0; i < len; i++) body[i] ^= head[2 + i % 4];
    char reply[2] = {(char)head[0], (char)len};
    write_all(fd, reply, sizeof reply);
    write_all(fd, (char *)body, len);
    if ((head[0] & 0x0f) == 8) return;
  }
}

/* Serves a long response in a process of its own. */
static void serve_in_child(int listener, int fd, const char *path) {
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child > 0) return;
  close(listener);
  long pieces = 0, millis = 0;
  if (sscanf(path, "/stream/%ld/%ld", &pieces, &millis) == 2)
    stream(fd, pieces, millis);
  else
    websocket(fd);
  _exit(0);
}

static void serve(int listener, int fd) {
  char request[4096], text[1024], path[256] = "";
  size_t len = 0;
  for (;;) {
    ssize_t n = read(fd, request + len, sizeof request - 1 - len);
    if (n <= 0) return;
    len += (size_t)n;
    request[len] = 0;
    if (strstr(request, "\r\n\r\n")) break;
    if (len == sizeof request - 1) return;
  }
  if (sscanf(request, "%*s %255s", path) != 1) return;
  unsigned long seed = 0;
  long millis = 0;
  if (strncmp(path, "/stream/", 8) == 0 || strcmp(path, "/ws") == 0) {
    serve_in_child(listener, fd, path);
    return;
  }
  if (strcmp(path, "/count") == 0) {
    snprintf(text, sizeof text, "hits=%ld ticks=%ld pid=%d\n", ++hits, ticks, getpid());
  } else if (strcmp(path, "/identity") == 0) {
    identity(text, sizeof text);
  } else if (sscanf(path, "/fill/%lu", &seed) == 1) {
    fill(seed);
    snprintf(text, sizeof text, "sum=%016lx\n", (unsigned long)checksum());
  } else if (strcmp(path, "/sum") == 0) {
    snprintf(text, sizeof text, "sum=%016lx\n", (unsigned long)checksum());
  } else if (sscanf(path, "/touch/%lu", &seed) == 1) {
    buffer[seed % (BUFFER / 8)] ^= seed | 1;
    snprintf(text, sizeof text, "sum=%016lx\n", (unsigned long)checksum());
  } else if (strcmp(path, "/vectors") == 0) {
    if (!counters) start_register_checks();
    snprintf(text, sizeof text, "wide=%d first=%ld second=%ld bad=%ld\n", wide, counters[0].checks, counters[1].checks,
             counters[0].bad + counters[1].bad);
  } else if (sscanf(path, "/sleep/%ld", &millis) == 1) {
    sleeps(millis, text, sizeof text);
  } else if (strcmp(path, "/now") == 0) {
    snprintf(text, sizeof text, "now=%ld\n", (long)(now(CLOCK_REALTIME) / 1000));
  } else {
    write_text(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    return;
  }
  respond(fd, text);
}

static _Noreturn void listen_and_serve(const char *port) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  signal(SIGCHLD, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
  if (listen(listener, 128) != 0) die("listen");
  struct pollfd waiting = {.fd = listener, .events = POLLIN};
  for (;;) {
    int ready = poll(&waiting, 1, 200);
    if (ready == 0) ticks++;
    if (ready <= 0) continue;
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    serve(listener, fd);
    close(fd);
  }
}

/* --- crashes --- */

static void attach_to_init(void) {
  if (ptrace(PTRACE_ATTACH, 1, NULL, NULL) != 0) die("attach");
  if (waitpid(1, NULL, __WALL) != 1) die("wait");
}

static _Noreturn void crash_init(void) {
  struct user_regs_struct registers;
  attach_to_init();
  if (ptrace(PTRACE_GETREGS, 1, NULL, &registers) != 0) die("read registers");
  registers.rip = 0;
  registers.orig_rax = (unsigned long long)-1; /* do not restart a system call */
  if (ptrace(PTRACE_SETREGS, 1, NULL, &registers) != 0) die("write registers");
  if (ptrace(PTRACE_DETACH, 1, NULL, NULL) != 0) die("detach");
  for (;;) pause();
}

int main(int argc, char **argv) {
  const char *command = argc > 1 ? argv[1] : "";
  if (strcmp(command, "serve") == 0 && argc > 2) listen_and_serve(argv[2]);
  if (strcmp(command, "reboot") == 0) return reboot(RB_AUTOBOOT);
  if (strcmp(command, "panic") == 0) crash_init();
  if (strcmp(command, "stop-init") == 0) {
    attach_to_init();
    for (;;) pause();
  }
  fprintf(stderr, "usage: probe serve PORT | reboot | panic | stop-init\n");
  return 64;
}
