#include "tests/bench/cpu.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static bool read_line(const char *path, char *out, int size)
{
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    bool ok = fgets(out, size, f) != NULL;
    fclose(f);
    return ok;
}

static bool read_run_time(int pid, uint64_t *out)
{
    char path[128], line[128];
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    if (dir == NULL)
        return false;
    *out = 0;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        unsigned long long ns;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%.16s/schedstat", pid, entry->d_name);
        if (read_line(path, line, sizeof(line)) && sscanf(line, "%llu", &ns) == 1)
            *out += ns;
    }
    closedir(dir);
    return true;
}

bool cpu_read(int pid, struct cpu_usage *out)
{
    char path[64], line[1024];
    unsigned long long user, system;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    if (!read_line(path, line, sizeof(line)))
        return false;
    const char *after_name = strrchr(line, ')');
    if (after_name == NULL || sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
        return false;
    out->user_ticks = user;
    out->system_ticks = system;
    return read_run_time(pid, &out->run_ns);
}

struct cpu_seconds cpu_between(const struct cpu_usage *from, const struct cpu_usage *to)
{
    struct cpu_seconds s = {.total = (double)(to->run_ns - from->run_ns) / 1e9};
    uint64_t user = to->user_ticks - from->user_ticks;
    uint64_t system = to->system_ticks - from->system_ticks;
    if (user + system > 0)
        s.user = s.total * (double)user / (double)(user + system);
    s.system = s.total - s.user;
    return s;
}
