/* Stands between the server and its disk: while the file named by SHIM_FAIL exists, syncing fails once, as a disk
 * does that lost what it was given. The file is removed by the failure, so the disk is well again afterwards. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int fails(void) {
    const char *name = getenv("SHIM_FAIL");
    return name && unlink(name) == 0;
}

int fdatasync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return real(fd);
}

int fsync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return real(fd);
}
