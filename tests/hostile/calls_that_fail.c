/* Loaded before the C library: calls fail from the n-th on, or a file is replaced once it was read.
 * tests/it/faults builds it.
 *
 * FAULT_CALL   write, read, short (half of what was asked for), fsync, open, rename, thread, replace
 * FAULT_AT     the first call that fails, from 1; with FAULT_ONCE the only one
 * FAULT_EVERY  in place of that: every so many calls one fails
 * FAULT_ERRNO  what it says
 * FAULT_TOLD   becomes a folder as soon as a call failed
 * FAULT_PATH   with replace: this file becomes FAULT_OTHER as soon as it was read and closed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int asked(const char *call) {
  const char *name = getenv("FAULT_CALL");
  return name && !strcmp(name, call);
}

/* Whether this call is to fail: each from the n-th on, or the n-th alone. */
static int fails(void) {
  static long seen;
  const char *at = getenv("FAULT_AT");
  long first = at ? atol(at) : 1, now = __atomic_add_fetch(&seen, 1, __ATOMIC_RELAXED);
  int does = getenv("FAULT_ONCE") ? now == first : now >= first;
  const char *every = getenv("FAULT_EVERY");
  if (every) does = now % atol(every) == 0;
  const char *told = getenv("FAULT_TOLD");
  if (does && told) mkdir(told, 0700);
  return does;
}

static int code(void) {
  const char *number = getenv("FAULT_ERRNO");
  return number ? atoi(number) : EIO;
}

static int is_file(int fd) {
  struct stat found;
  return !fstat(fd, &found) && S_ISREG(found.st_mode);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  ssize_t (*next)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
  if (fd > 2 && asked("write") && is_file(fd) && fails()) {
    errno = code();
    return -1;
  }
  if (fd > 2 && asked("short") && is_file(fd) && fails() && count > 1) count /= 2;
  return next(fd, bytes, count);
}

ssize_t read(int fd, void *bytes, size_t count) {
  ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
  if (asked("read") && is_file(fd) && fails()) {
    errno = code();
    return -1;
  }
  if (asked("short") && is_file(fd) && fails() && count > 1) count /= 2;
  return next(fd, bytes, count);
}

int fsync(int fd) {
  int (*next)(int) = dlsym(RTLD_NEXT, "fsync");
  if (asked("fsync") && fails()) {
    errno = code();
    return -1;
  }
  return next(fd);
}

int open64(const char *path, int flags, ...) {
  int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
  va_list more;
  va_start(more, flags);
  mode_t mode = va_arg(more, mode_t);
  va_end(more);
  if (asked("open") && strncmp(path, "/proc/", 6) && strncmp(path, "/sys/", 5) && fails()) {
    errno = code();
    return -1;
  }
  return next(path, flags, mode);
}

int rename(const char *from, const char *to) {
  int (*next)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
  if (asked("rename") && fails()) {
    errno = code();
    return -1;
  }
  return next(from, to);
}

int close(int fd) {
  int (*next)(int) = dlsym(RTLD_NEXT, "close");
  const char *path = getenv("FAULT_PATH"), *other = getenv("FAULT_OTHER");
  if (asked("replace") && path && other && is_file(fd) && lseek(fd, 0, SEEK_CUR) > 4096) {
    char link[64], found[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, found, sizeof found);
    if (length > 0 && (size_t)length == strlen(path) && !memcmp(found, path, length))
      rename(other, path);
  }
  return next(fd);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*what)(void *), void *with) {
  int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
      dlsym(RTLD_NEXT, "pthread_create");
  return asked("thread") && fails() ? EAGAIN : next(thread, how, what, with);
}
