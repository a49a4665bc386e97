/* The page cache that a power cut takes away (see src/shim.rs).
 *
 * Preloaded into a process, this keeps in $STOCKADE_SHIM_SHADOW, for every file under $STOCKADE_SHIM_DIR, what a power cut
 * would leave of it: the file as of its last fsync or fdatasync. Writes only note which bytes have become dirty; a
 * sync copies those bytes, and the size, into the shadow before it returns. A kill in the middle of that copy leaves
 * what a power cut in the middle of a sync leaves: some of the bytes.
 *
 * Names: a file's name becomes durable with its first sync; a rename or an unlink becomes durable with the next sync of
 * anything, as in a file system with an ordered journal (ext4).
 *
 * Left out: `*-shm` (SQLite's index in shared memory, rebuilt when it is missing), the book of the simulated payment provider
 * (it stands for somebody else's, whom our power cut does not reach), files written through a mapping, raw system calls, and
 * descriptors that were duplicated. With STOCKADE_SHIM_IGNORE_SYNC set syncs are not noted of files whose names begin with what
 * it says, and of no file if it is empty, which stands for a program that forgot them. Errors of the shim itself abort the
 * process: a shadow that lies is worse than none.
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
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 65536
#define PROVIDER_BOOK "/simulated-provider.book"

typedef struct { off_t from, to; } range;

/* One file under the folder, however many descriptors it has. */
typedef struct file {
    dev_t device;
    ino_t inode;
    char *name;         /* inside the folder, with the leading slash */
    range *dirty;
    size_t dirty_count, dirty_room;
    off_t smallest;     /* the smallest size since the last sync: behind it the shadow must forget */
    int descriptors;
    struct file *next;
} file;

/* A rename (to != NULL) or an unlink that is not durable yet. */
typedef struct change {
    char *from, *to;
    struct change *next;
} change;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char folder[PATH_MAX], shadow[PATH_MAX];
static size_t folder_length;
static int active;
static const char *ignored;     /* NULL: every sync counts */
static file *files, *by_descriptor[DESCRIPTORS_MAX];
static char syncs_each_write[DESCRIPTORS_MAX];
static change *changes;

#define REAL(result, name, ...) static result (*real_##name)(__VA_ARGS__)
REAL(int, open, const char *, int, ...);
REAL(int, openat, int, const char *, int, ...);
REAL(int, close, int);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
REAL(int, ftruncate, int, off_t);
REAL(int, rename, const char *, const char *);
REAL(int, renameat, int, const char *, int, const char *);
REAL(int, unlink, const char *);
REAL(int, unlinkat, int, const char *, int);
REAL(int, fsync, int);
REAL(int, fdatasync, int);

static void start(void) {
#define FIND(name, symbol) real_##name = dlsym(RTLD_NEXT, symbol)
    FIND(open, "open64"); FIND(openat, "openat64"); FIND(close, "close");
    FIND(write, "write"); FIND(writev, "writev"); FIND(pwrite, "pwrite64"); FIND(pwritev, "pwritev64");
    FIND(ftruncate, "ftruncate64"); FIND(rename, "rename"); FIND(renameat, "renameat");
    FIND(unlink, "unlink"); FIND(unlinkat, "unlinkat"); FIND(fsync, "fsync"); FIND(fdatasync, "fdatasync");
    const char *dir = getenv("STOCKADE_SHIM_DIR"), *copy = getenv("STOCKADE_SHIM_SHADOW");
    active = dir && copy && realpath(dir, folder) && realpath(copy, shadow);
    folder_length = strlen(folder);
    ignored = getenv("STOCKADE_SHIM_IGNORE_SYNC");
}

static void begin(void) { pthread_once(&once, start); }

static void give_up(const char *what) {
    int reason = errno;
    dprintf(2, "page cache shim: %s: %s\n", what, strerror(reason));
    abort();
}

static void *room(void *old, size_t size) {
    void *memory = realloc(old, size);
    if (!memory) give_up("memory");
    return memory;
}

static char *copy_of(const char *text) {
    char *memory = strdup(text);
    if (!memory) give_up("memory");
    return memory;
}

/* The name inside the folder, or NULL if the path is not ours. */
static const char *inside(const char *path) {
    if (!active || strncmp(path, folder, folder_length) != 0 || path[folder_length] != '/') return NULL;
    size_t length = strlen(path);
    if (length > 4 && strcmp(path + length - 4, "-shm") == 0) return NULL;
    return strcmp(path + folder_length, PROVIDER_BOOK) == 0 ? NULL : path + folder_length;
}

static void in_shadow(const char *name, char *path) {
    if (snprintf(path, PATH_MAX, "%s%s", shadow, name) >= PATH_MAX) give_up("a path too long");
}

/* ---- descriptors ---- */

static void opened(int descriptor, int flags) {
    if (!active || descriptor < 0 || descriptor >= DESCRIPTORS_MAX) return;
    int kept = errno;
    char link[64], path[PATH_MAX];
    struct stat status;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0 && fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)) {
        path[length] = 0;
        const char *name = inside(path);
        if (name) {
            pthread_mutex_lock(&lock);
            file *found = files;
            while (found && (found->device != status.st_dev || found->inode != status.st_ino)) found = found->next;
            if (!found) {
                found = room(NULL, sizeof *found);
                *found = (file){ .device = status.st_dev, .inode = status.st_ino, .name = copy_of(name),
                                 .smallest = status.st_size, .next = files };
                files = found;
            } else if (strcmp(found->name, name) != 0) {
                free(found->name);      /* the inode of a deleted file, used again */
                found->name = copy_of(name);
            }
            if (flags & O_TRUNC) found->smallest = 0;
            found->descriptors++;
            by_descriptor[descriptor] = found;
            syncs_each_write[descriptor] = (flags & (O_SYNC | O_DSYNC)) != 0;
            pthread_mutex_unlock(&lock);
        }
    }
    errno = kept;
}

static file *known(int descriptor) {
    return active && descriptor >= 0 && descriptor < DESCRIPTORS_MAX ? by_descriptor[descriptor] : NULL;
}

/* ---- what is dirty ---- */

static void note(file *written, off_t from, off_t to) {
    range *last = written->dirty_count ? &written->dirty[written->dirty_count - 1] : NULL;
    if (last && from <= last->to && to >= last->from) {
        if (from < last->from) last->from = from;
        if (to > last->to) last->to = to;
        return;
    }
    if (written->dirty_count == written->dirty_room) {
        written->dirty_room = written->dirty_room ? 2 * written->dirty_room : 64;
        written->dirty = room(written->dirty, written->dirty_room * sizeof *written->dirty);
    }
    written->dirty[written->dirty_count++] = (range){ from, to };
}

static void apply_changes(void) {
    char from[PATH_MAX], to[PATH_MAX];
    while (changes) {
        change *first = changes;
        changes = first->next;
        in_shadow(first->from, from);
        if (first->to) {
            in_shadow(first->to, to);
            if (real_rename(from, to) != 0 && errno != ENOENT) give_up("rename in the shadow");
        } else if (real_unlink(from) != 0 && errno != ENOENT) {
            give_up("unlink in the shadow");
        }
        free(first->from);
        free(first->to);
        free(first);
    }
}

/* Brings the shadow up to date with one file. The descriptor may be open for writing only, so the file is read anew. */
static void copy_dirty(int descriptor, file *synced) {
    char path[PATH_MAX], link[64], buffer[65536];
    struct stat status;
    if (fstat(descriptor, &status) != 0) give_up("fstat");
    if (status.st_nlink == 0) return;
    in_shadow(synced->name, path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    int from = real_open(link, O_RDONLY | O_CLOEXEC), to = real_open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (from < 0 || to < 0) give_up(path);
    if (synced->smallest < status.st_size) {
        struct stat shadowed;
        if (fstat(to, &shadowed) != 0) give_up("fstat in the shadow");
        if (synced->smallest < shadowed.st_size && real_ftruncate(to, synced->smallest) != 0) give_up("truncate");
    }
    if (real_ftruncate(to, status.st_size) != 0) give_up("truncate");
    for (size_t place = 0; place < synced->dirty_count; place++) {
        for (off_t at = synced->dirty[place].from; at < synced->dirty[place].to;) {
            size_t wanted = (size_t)(synced->dirty[place].to - at);
            ssize_t got = pread(from, buffer, wanted < sizeof buffer ? wanted : sizeof buffer, at);
            if (got < 0) give_up("read");
            if (got == 0) break;
            if (real_pwrite(to, buffer, (size_t)got, at) != got) give_up("write to the shadow");
            at += got;
        }
    }
    synced->dirty_count = 0;
    synced->smallest = status.st_size;
    real_close(from);
    real_close(to);
}

static int is_ignored(const file *synced) {
    return ignored && (!*ignored || (synced && strncmp(synced->name + 1, ignored, strlen(ignored)) == 0));
}

static void sync_shadow(int descriptor) {
    file *synced = known(descriptor);
    if (!active || (!synced && !changes)) return;
    int kept = errno;
    pthread_mutex_lock(&lock);
    synced = known(descriptor);
    if (!is_ignored(synced)) {
        /* Names first: under this file's another one may stand in the shadow that has been moved or deleted. */
        apply_changes();
        if (synced) copy_dirty(descriptor, synced);
    }
    pthread_mutex_unlock(&lock);
    errno = kept;
}

/* ---- what the process calls ---- */

#define MODE_OF(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, last); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) {
    begin();
    MODE_OF(flags, flags);
    int descriptor = real_open(path, flags, mode);
    opened(descriptor, flags);
    return descriptor;
}

int openat(int dir, const char *path, int flags, ...) {
    begin();
    MODE_OF(flags, flags);
    int descriptor = real_openat(dir, path, flags, mode);
    opened(descriptor, flags);
    return descriptor;
}

int open64(const char *path, int flags, ...) { MODE_OF(flags, flags); return open(path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE_OF(flags, flags); return openat(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int descriptor) {
    begin();
    if (known(descriptor)) {
        pthread_mutex_lock(&lock);
        file *closed = by_descriptor[descriptor];
        if (closed) closed->descriptors--;
        by_descriptor[descriptor] = NULL;
        pthread_mutex_unlock(&lock);
    }
    return real_close(descriptor);
}

/* Notes are taken after the write: until then there is nothing that a sync could promise. */
static ssize_t wrote(int descriptor, ssize_t count, off_t at) {
    if (count > 0 && known(descriptor)) {
        int kept = errno;
        pthread_mutex_lock(&lock);
        file *written = by_descriptor[descriptor];
        if (written) {
            off_t end = at >= 0 ? at + count : lseek(descriptor, 0, SEEK_CUR);
            note(written, end - count, end);
        }
        pthread_mutex_unlock(&lock);
        if (syncs_each_write[descriptor]) sync_shadow(descriptor);
        errno = kept;
    }
    return count;
}

ssize_t write(int descriptor, const void *data, size_t size) {
    begin();
    return wrote(descriptor, real_write(descriptor, data, size), -1);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    begin();
    return wrote(descriptor, real_writev(descriptor, parts, count), -1);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t at) {
    begin();
    return wrote(descriptor, real_pwrite(descriptor, data, size, at), at);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t at) { return pwrite(descriptor, data, size, at); }

ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t at) {
    begin();
    return wrote(descriptor, real_pwritev(descriptor, parts, count, at), at);
}

ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off_t at) {
    return pwritev(descriptor, parts, count, at);
}

int ftruncate(int descriptor, off_t size) {
    begin();
    int result = real_ftruncate(descriptor, size);
    if (result == 0 && known(descriptor)) {
        pthread_mutex_lock(&lock);
        file *cut = by_descriptor[descriptor];
        if (cut && size < cut->smallest) cut->smallest = size;
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int ftruncate64(int descriptor, off_t size) { return ftruncate(descriptor, size); }

/* Where a path leads, whether or not its last part exists. */
static const char *name_at(int dir, const char *path, char *whole) {
    char base[PATH_MAX], parent[PATH_MAX];
    if (!active) return NULL;
    if (path[0] == '/') {
        snprintf(base, sizeof base, "%s", path);
    } else {
        char link[64], from[PATH_MAX];
        if (dir == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t length = readlink(link, from, sizeof from - 1);
        if (length <= 0) return NULL;
        from[length] = 0;
        if (snprintf(base, sizeof base, "%s/%s", from, path) >= (int)sizeof base) return NULL;
    }
    char *last = strrchr(base, '/');
    *last = 0;
    if (!realpath(last == base ? "/" : base, parent)) return NULL;
    if (snprintf(whole, PATH_MAX, "%s/%s", parent, last + 1) >= PATH_MAX) return NULL;
    return inside(whole);
}

static void changed(const char *from, const char *to) {
    change *added = room(NULL, sizeof *added), **end = &changes;
    *added = (change){ copy_of(from), to ? copy_of(to) : NULL, NULL };
    pthread_mutex_lock(&lock);
    while (*end) end = &(*end)->next;
    *end = added;
    for (file *renamed = files; to && renamed; renamed = renamed->next) {
        if (strcmp(renamed->name, from) == 0) {
            free(renamed->name);
            renamed->name = copy_of(to);
        }
    }
    pthread_mutex_unlock(&lock);
}

static int renamed(int from_dir, const char *from, int to_dir, const char *to, int (*act)(int, const char *, int, const char *)) {
    char old_path[PATH_MAX], new_path[PATH_MAX];
    const char *old_name = name_at(from_dir, from, old_path), *new_name = name_at(to_dir, to, new_path);
    int result = act(from_dir, from, to_dir, to);
    if (result == 0 && old_name) changed(old_name, new_name);
    return result;
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    begin();
    return renamed(from_dir, from, to_dir, to, real_renameat);
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int dir, const char *path, int flags) {
    begin();
    char whole[PATH_MAX];
    const char *name = name_at(dir, path, whole);
    int result = real_unlinkat(dir, path, flags);
    if (result == 0 && name && !(flags & AT_REMOVEDIR)) changed(name, NULL);
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int fsync(int descriptor) {
    begin();
    sync_shadow(descriptor);
    return real_fsync(descriptor);
}

int fdatasync(int descriptor) {
    begin();
    sync_shadow(descriptor);
    return real_fdatasync(descriptor);
}
