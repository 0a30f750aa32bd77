/* Loaded before libc (LD_PRELOAD) by tests/machine.py: what a machine does to a program, on demand and at once.
 *
 * The control file is shared memory of a test and of every process that has this loaded. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct control {
    long wall_offset_s;  /* the wall clock is so far from the truth */
    long failing_syncs;  /* so many calls of fsync and fdatasync fail from now on */
    long steps;          /* changes made to files so far */
    long kill_at;        /* the process that would make this change is killed before it; 0: nobody is */
};

static struct control *control;

__attribute__((constructor)) static void open_control(void) {
    const char *name = getenv("FAULTY_LIBC");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED)
        control = shared;
}

static void step(void) {
    if (control && __atomic_add_fetch(&control->steps, 1, __ATOMIC_SEQ_CST) == control->kill_at)
        kill(getpid(), SIGKILL);
}

static int sync_fails(void) {
    if (!control || control->failing_syncs <= 0)
        return 0;
    __atomic_sub_fetch(&control->failing_syncs, 1, __ATOMIC_SEQ_CST);
    errno = EIO;
    return 1;
}

int fsync(int fd) {
    step();
    return sync_fails() ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    step();
    return sync_fails() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    step();
    return syscall(SYS_pwrite64, fd, data, size, at);
}

int ftruncate64(int fd, off64_t size) {
    step();
    return (int)syscall(SYS_ftruncate, fd, size);
}

int unlink(const char *name) {
    step();
    return (int)syscall(SYS_unlinkat, AT_FDCWD, name, 0);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = (int)syscall(SYS_clock_gettime, clock, at);
    if (!failed && control && clock == CLOCK_REALTIME)
        at->tv_sec += control->wall_offset_s;
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    int failed = (int)syscall(SYS_gettimeofday, at, zone);
    if (!failed && control)
        at->tv_sec += control->wall_offset_s;
    return failed;
}

time_t time(time_t *at) {
    struct timeval now = {0};
    gettimeofday(&now, NULL);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
