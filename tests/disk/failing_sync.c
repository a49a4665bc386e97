/* Stands between the server and its disk: while the file named by SHIM_FAIL exists, syncing fails once, as a disk
 * does that lost what it was given. The file is removed by the failure, so the disk is well again afterwards. If a
 * path stands in it, only the sync of that file or folder fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    const char *name = getenv("SHIM_FAIL");
    int file = name ? open(name, O_RDONLY) : -1;
    if (file < 0) return 0;
    char wanted[PATH_MAX] = "", path[PATH_MAX] = "", link[64];
    ssize_t length = read(file, wanted, sizeof wanted - 1);
    close(file);
    if (length > 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (readlink(link, path, sizeof path - 1) < 0 || strcmp(path, wanted) != 0) return 0;
    }
    return unlink(name) == 0;
}

int fdatasync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return real(fd);
}

int fsync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return real(fd);
}
