/* What:    the files of a spool: its directory, the lock on it, and segments that are appended to, read, cut and removed.
 * Owns:    descriptors; a struct segment is the caller's, from files_create_segment() or files_read() until segment_destroy().
 * Threads: one at a time.
 * Fails:   at the start with ERR_IO and the reason; later with an errno, 0 being success.
 *
 *   DIRECTORY/lock                       flock'ed while a process uses the directory
 *   DIRECTORY/0000000000000007.spool     a segment; the number is hexadecimal
 *   DIRECTORY/0000000000000003.bad       was damaged, and is not needed any more: for a person to look at
 */
#ifndef PROXY_BUS_SPOOL_FILES_H
#define PROXY_BUS_SPOOL_FILES_H

#include "common/list.h"
#include "common/log.h"
#include "proxy/bus/spool_record.h"

struct spool_files {
    const char *path; /* borrowed */
    int directory_fd; /* -1: not open */
    int lock_fd;
    uint64_t next_number;
};

struct segment {
    struct list link; /* the user's */
    uint64_t number;
    int fd; /* -1: sealed */
    uint64_t size;
    bool is_damaged;
    uint64_t live; /* the user's: entries that have their record here, and how large these are */
    uint64_t live_bytes;
};

struct files_reader {
    void (*on_record)(void *ctx, struct segment *segment, const struct spool_record *record);
    void *ctx;
    struct log *log;
    uint64_t damages; /* what could not be read */
};

/* Makes the directory if it is not there, and sees to it that no other process uses it and that files can be written. */
enum err files_open(struct spool_files *files, const char *path, char *error, size_t error_size);
void files_close(struct spool_files *files);

/* All records, segment by segment. The last write of the newest segment may have been cut off by a crash: that tail goes. Anything else that
 * can not be read is damage: logged and counted, and the rest of that segment is skipped. ERR_IO: a file can not be opened at all. */
enum err files_read(struct spool_files *files, struct files_reader *reader, struct list *segments, char *error, size_t error_size);

int files_create_segment(struct spool_files *files, struct segment **out); /* its name is on the disk, and its header written */
void files_remove_segment(struct spool_files *files, struct segment *segment, struct log *log); /* and destroys it */

/* All of it or nothing: after a failure the file is as it was, or it is sealed, and the rest is told from a record at the next start. */
int segment_append(struct segment *segment, struct span bytes);
int segment_sync(struct segment *segment, size_t newest); /* after a failure the `newest` bytes are cut off and it is sealed */
void segment_seal(struct segment *segment);
void segment_destroy(struct segment *segment);

#endif
