/* What fsync and fdatasync do in the process that loads this by LD_PRELOAD. Linux; see flushes.py.

   FLUSH_COUNT     a file with a number of 8 bytes: how often they were called
   FLUSH_DELAY_US  by how much longer each takes
   FLUSH_COPIES    a directory: each file is copied there when it was flushed, so that what stands there is what
                   the disk has promised to keep */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t copying = PTHREAD_MUTEX_INITIALIZER;
static int64_t *count;
static int64_t delay_us;
static const char *copies;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FLUSH_COUNT"), *delay = getenv("FLUSH_DELAY_US");
    copies = getenv("FLUSH_COPIES");
    delay_us = delay ? atoll(delay) : 0;
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *shared = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        count = shared == MAP_FAILED ? NULL : shared;
        close(file);
    }
}

static void copy(int file) {
    char link[64], from[PATH_MAX], to[PATH_MAX], new[PATH_MAX], buffer[65536];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, from, sizeof from - 1);
    struct stat found;
    if (length < 0 || fstat(file, &found) || !S_ISREG(found.st_mode))
        return;
    from[length] = 0;
    const char *name = strrchr(from, '/') + 1;
    if (snprintf(to, sizeof to, "%s/%s", copies, name) >= (int)sizeof to ||
        snprintf(new, sizeof new, "%s/.%s.new", copies, name) >= (int)sizeof new)
        abort();
    /* Read by the same descriptor: closing another one of the file would drop the locks that SQLite has on it. */
    int target = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    off_t at = 0;
    while (target >= 0 && (length = pread(file, buffer, sizeof buffer, at)) > 0) {
        if (write(target, buffer, length) != length)
            abort();
        at += length;
    }
    if (target >= 0 && (close(target) || rename(new, to)))
        abort();
}

static int flush(const char *call, int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    if (delay_us)
        nanosleep(&(struct timespec){delay_us / 1000000, delay_us % 1000000 * 1000}, NULL);
    int result = real(file);
    if (count)
        __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    if (copies && result == 0) {
        pthread_mutex_lock(&copying);
        copy(file);
        pthread_mutex_unlock(&copying);
    }
    return result;
}

int fsync(int file) { return flush("fsync", file); }

int fdatasync(int file) { return flush("fdatasync", file); }
