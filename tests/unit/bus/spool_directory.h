/* What:    the directory of a spool in the unit tests, and what is in it. */
#ifndef TESTS_UNIT_BUS_SPOOL_DIRECTORY_H
#define TESTS_UNIT_BUS_SPOOL_DIRECTORY_H

#include <check.h>
#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DIRECTORY_SIZE 64

static inline int directory_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static inline void directory_make(char path[static DIRECTORY_SIZE])
{
    snprintf(path, DIRECTORY_SIZE, "/tmp/outrigger-spool-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(path));
}

static inline void directory_remove(const char *path)
{
    nftw(path, directory_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* How many files end so; `last`, if not NULL, gets the path of the one that sorts last. */
static inline int directory_count(const char *path, const char *ending, char *last)
{
    int count = 0;
    char best[256] = "";
    DIR *dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        size_t len = strlen(d->d_name);
        if (len > strlen(ending) && strcmp(d->d_name + len - strlen(ending), ending) == 0) {
            count++;
            if (strcmp(d->d_name, best) > 0) {
                snprintf(best, sizeof best, "%s", d->d_name);
            }
        }
    }
    closedir(dir);
    if (last != NULL) {
        sprintf(last, "%s/%s", path, best);
    }
    return count;
}

#endif
