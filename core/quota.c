#include "core/quota.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOUNT    "/sys/fs/cgroup"
#define MAX_PATH 1024

double quota_parse(const char *text)
{
    char *end;
    if (strncmp(text, "max", 3) == 0 && (text[3] == '\0' || isspace((unsigned char)text[3]))) {
        return (double)INFINITY;
    }
    double quota = strtod(text, &end);
    if (end == text) {
        return (double)NAN;
    }
    text = end;
    double period = strtod(text, &end);
    if (end == text || !(period > 0) || isnan(quota)) {
        return (double)NAN;
    }
    return quota > 0 ? quota / period : (double)INFINITY; // v1: -1
}

/* First lines of the files, with a space between them; false: one is not there. */
static bool read_lines(const char *const *paths, int n, char *buf, size_t cap)
{
    size_t len = 0;
    for (int i = 0; i < n; i++) {
        FILE *f = fopen(paths[i], "re");
        bool read = f != NULL && fgets(buf + len, (int)(cap - len), f) != NULL;
        if (f != NULL) {
            fclose(f);
        }
        if (!read) {
            return false;
        }
        len += strcspn(buf + len, "\n");
        buf[len] = '\0';
        if (i + 1 < n && len + 2 < cap) {
            buf[len++] = ' ';
            buf[len] = '\0';
        }
    }
    return true;
}

/* What two files of a group's folder, or one (b NULL), say; infinite where they say nothing. */
static double of_files(const char *folder, const char *a, const char *b)
{
    char path_a[MAX_PATH + 64], path_b[MAX_PATH + 64], text[128];
    snprintf(path_a, sizeof path_a, "%s/%s", folder, a);
    snprintf(path_b, sizeof path_b, "%s/%s", folder, b != NULL ? b : "");
    const char *const paths[] = {path_a, path_b};
    if (!read_lines(paths, b != NULL ? 2 : 1, text, sizeof text)) {
        return (double)INFINITY;
    }
    double cpus = quota_parse(text);
    return isnan(cpus) ? (double)INFINITY : cpus;
}

/* This process's group in the one hierarchy of v2, "/a/b"; empty where there is none. */
static void own_group(char *buf, size_t cap)
{
    char line[MAX_PATH];
    FILE *f = fopen("/proc/self/cgroup", "re");
    buf[0] = '\0';
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::/", 4) == 0) {
            snprintf(buf, cap, "%.*s", (int)cap - 1, line + 3);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
}

double quota_cpus(void)
{
    char group[MAX_PATH / 2], folder[MAX_PATH];
    double least = of_files(MOUNT "/cpu", "cpu.cfs_quota_us", "cpu.cfs_period_us");
    own_group(group, sizeof group);
    for (;;) { // a group has no more than the one it is in
        snprintf(folder, sizeof folder, "%s%s", MOUNT, group);
        least = fmin(least, of_files(folder, "cpu.max", NULL));
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return least;
        }
        *slash = '\0';
    }
}
