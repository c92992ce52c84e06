#include "results/provenance.h"

#include "core/config.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/str.h"
#include "results/store.h"

#include "version.h"

#include <jansson.h>
#include <xxhash.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* --- redaction ------------------------------------------------------------------------------------ */

static bool ends_in_secret(const char *word, size_t n)
{
    static const char *const endings[] = {
        "key",        "token",       "secret",      "password",      "passwd", "signature",
        "credential", "credentials", "accesskeyid", "authorization", "bearer"};
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t k = strlen(endings[i]);
        if (n >= k && strncasecmp(word + n - k, endings[i], k) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.';
}

/* Length of what may stay: up to and with the separator after the first secret's name. */
static size_t open_part(const char *text)
{
    size_t at = 0;
    while (text[at] != '\0') {
        size_t n = 0;
        while (is_word(text[at + n])) {
            n++;
        }
        size_t after = at + n + strspn(text + at + n, " \t\"'");
        if (n > 0 && ends_in_secret(text + at, n) && (text[after] == '=' || text[after] == ':')) {
            return after + 1;
        }
        at += n > 0 ? n : 1;
    }
    return at;
}

void provenance_redact_urls(const char *text, size_t n, struct str *out)
{
    const char *end = text + n;
    const char *at = text;
    const char *slashes;
    while (at < end && (slashes = memmem(at, (size_t)(end - at), "://", 3)) != NULL) {
        const char *host = slashes + 3, *stop = host;
        while (stop < end && strchr("/?# \t\"'", *stop) == NULL) {
            stop++;
        }
        str_append(out, at, (size_t)(host - at));
        const char *sign = memrchr(host, '@', (size_t)(stop - host));
        if (sign != NULL) {
            str_puts(out, "***");
            host = sign;
        }
        str_append(out, host, (size_t)(stop - host));
        at = stop;
    }
    str_append(out, at, (size_t)(end - at));
}

void provenance_redact(const char *text, struct str *out)
{
    size_t n = open_part(text);
    provenance_redact_urls(text, n, out);
    if (text[n] != '\0') {
        str_puts(out, "***");
    }
}

/* A bare "--api-key" hides the argument after it. */
static bool hides_next(const char *arg)
{
    return arg[0] == '-' && strchr(arg, '=') == NULL && ends_in_secret(arg, strlen(arg));
}

static json_t *redacted_argv(int argc, char **argv)
{
    json_t *list = json_array();
    bool hidden = false;
    for (int i = 0; i < argc; i++) {
        struct str s = {0};
        if (hidden) {
            str_puts(&s, "***");
        } else {
            provenance_redact(argv[i], &s);
        }
        hidden = !hidden && hides_next(argv[i]);
        json_t *text = json_stringn(s.data != NULL ? s.data : "", s.len);
        json_array_append_new(list, text != NULL ? text : json_string("(not UTF-8)"));
        str_free(&s);
    }
    return list;
}

/* --- environment ---------------------------------------------------------------------------------- */

static const char *const slurm_names[] = {
    "SLURM_JOB_ID",        "SLURM_JOB_NAME",        "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES", "SLURM_JOB_PARTITION",   "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_QOS",       "SLURM_ARRAY_JOB_ID",    "SLURM_ARRAY_TASK_ID",
    "SLURM_CLUSTER_NAME",  "SLURM_CPUS_PER_TASK",   "SLURM_GPUS",
    "SLURM_GPUS_PER_TASK", "SLURM_HET_SIZE",        "SLURM_MPI_TYPE",
    "SLURM_NTASKS",        "SLURM_NTASKS_PER_NODE", "SLURM_RESTART_COUNT",
    "SLURM_STEP_ID",       "SLURM_STEP_NODELIST",   NULL};
static const char *const pod_names[] = {
    "POD_NAME",       "POD_NAMESPACE",    "POD_UID",
    "NODE_NAME",      "POD_IMAGE",        "JOB_COMPLETION_INDEX",
    "LWS_GROUP_SIZE", "LWS_WORKER_INDEX", NULL};
/* Names in full, but NCCL's: among Open MPI's own settings are its transport key and its daemon's address. */
static const char *const env_names[] = {"CUDA_VISIBLE_DEVICES",
                                        "HDF5_USE_FILE_LOCKING",
                                        "MALLOC_ARENA_MAX",
                                        "NCCL_*",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "OMPI_MCA_btl",
                                        "OMPI_MCA_btl_tcp_if_exclude",
                                        "OMPI_MCA_btl_tcp_if_include",
                                        "OMPI_MCA_btl_vader_single_copy_mechanism",
                                        "OMPI_MCA_coll",
                                        "OMPI_MCA_hwloc_base_binding_policy",
                                        "OMPI_MCA_mpi_yield_when_idle",
                                        "OMPI_MCA_mtl",
                                        "OMPI_MCA_oob_tcp_if_include",
                                        "OMPI_MCA_pml",
                                        "OMPI_MCA_rmaps_base_mapping_policy",
                                        "OMP_NUM_THREADS",
                                        "OMP_PLACES",
                                        "OMP_PROC_BIND",
                                        "TIDEMARK_LOG",
                                        "UCX_NET_DEVICES",
                                        "UCX_TLS",
                                        NULL};

/* "NAME_*" is all that begin so, but for what sounds like a secret. */
static bool is_listed(const char *const *names, const char *name, size_t n)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        const size_t k = strcspn(names[i], "*");
        const bool fits = names[i][k] == '*' ? n > k && !ends_in_secret(name, n) : n == k;
        if (fits && strncmp(names[i], name, k) == 0) {
            return true;
        }
    }
    return false;
}

static json_t *listed_environment(const char *const *names)
{
    json_t *out = json_object();
    for (char **v = environ; *v != NULL; v++) {
        const char *equals = strchr(*v, '=');
        if (equals == NULL || !is_listed(names, *v, (size_t)(equals - *v))) {
            continue;
        }
        char *name = xmalloc((size_t)(equals - *v) + 1);
        memcpy(name, *v, (size_t)(equals - *v));
        name[equals - *v] = '\0';
        struct str value = {0};
        provenance_redact(equals + 1, &value);
        json_t *text = json_string(value.data != NULL ? value.data : "");
        json_object_set_new(out, name, text != NULL ? text : json_null());
        str_free(&value);
        free(name);
    }
    return out;
}

/* --- the machine ---------------------------------------------------------------------------------- */

/* First line of a small file of /proc or /sys that begins with KEY, after its ':' or as a whole. */
static json_t *line_of(const char *path, const char *key)
{
    char line[512];
    json_t *found = NULL;
    FILE *in = fopen(path, "re");
    while (in != NULL && found == NULL && fgets(line, sizeof line, in) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, key, strlen(key)) == 0) {
            const char *colon = key[0] != '\0' ? strchr(line, ':') : NULL;
            found = json_string(colon != NULL ? colon + 1 + strspn(colon + 1, " \t") : line);
        }
    }
    if (in != NULL) {
        fclose(in);
    }
    return found != NULL ? found : json_null();
}

static void add_machine(json_t *out)
{
    struct utsname u;
    if (uname(&u) == 0) {
        json_object_set_new(out, "host", json_string(u.nodename));
        json_object_set_new(out, "kernel",
                            json_sprintf("%s %s %s", u.sysname, u.release, u.machine));
    }
    json_object_set_new(out, "cpu_model", line_of("/proc/cpuinfo", "model name"));
    json_object_set_new(out, "n_cpus", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
    json_object_set_new(out, "governor",
                        line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", ""));
    json_object_set_new(out, "memory_bytes",
                        json_integer((json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)));
}

void provenance_cpu(char *buf, size_t cap)
{
    json_t *name = line_of("/proc/cpuinfo", "model name");
    const char *text = json_string_value(name);
    snprintf(buf, cap, "%s", text != NULL ? text : "");
    json_decref(name);
}

static void add_build(json_t *out, const char *mpi_library)
{
    json_object_set_new(out, "version", json_string(TIDEMARK_VERSION));
    json_object_set_new(out, "git_sha", json_string(TIDEMARK_GIT_SHA));
    json_object_set_new(out, "compiler", json_string(__VERSION__));
    json_object_set_new(out, "build_flags", json_string(TIDEMARK_BUILD_FLAGS));
    unsigned xxh = XXH_versionNumber();
    json_t *libraries = json_object();
    json_object_set_new(libraries, "hdf5", json_string(store_library()));
    json_object_set_new(libraries, "jansson", json_string(jansson_version_str()));
    json_object_set_new(libraries, "xxhash",
                        json_sprintf("%u.%u.%u", xxh / 10000, xxh / 100 % 100, xxh % 100));
    json_object_set_new(libraries, "mpi",
                        mpi_library != NULL ? json_string(mpi_library) : json_null());
    json_object_set_new(libraries, "libyaml", json_string(config_library()));
    json_object_set_new(libraries, "random123", json_string(rng_library()));
    json_object_set_new(out, "libraries", libraries);
}

json_t *provenance_collect(int argc, char **argv, const char *mpi_library)
{
    json_t *out = json_object();
    json_t *pod = listed_environment(pod_names);
    json_object_set_new(pod, "in_kubernetes",
                        json_boolean(getenv("KUBERNETES_SERVICE_HOST") != NULL));
    json_object_set_new(out, "argv", redacted_argv(argc, argv));
    add_build(out, mpi_library);
    add_machine(out);
    json_object_set_new(out, "slurm", listed_environment(slurm_names));
    json_object_set_new(out, "pod", pod);
    json_object_set_new(out, "env", listed_environment(env_names));
    return out;
}

/* --- names and hashes ----------------------------------------------------------------------------- */

const char *provenance_utc(long long unix_ns, char *buf, unsigned long cap)
{
    time_t t = (time_t)(unix_ns / 1000000000LL);
    struct tm tm;
    buf[0] = '\0';
    if (gmtime_r(&t, &tm) == NULL || strftime(buf, cap, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        buf[0] = '\0';
    }
    return buf;
}

void provenance_uuid(char *buf, unsigned long cap)
{
    uint8_t b[16] = {0};
    CHECK(cap >= 37);
    CHECK(getrandom(b, sizeof b, 0) == (ssize_t)sizeof b);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); // RFC 4122, section 4.4
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    size_t at = 0;
    for (size_t i = 0; i < sizeof b; i++) {
        bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        at += (size_t)snprintf(buf + at, cap - at, "%s%02x", dash ? "-" : "", b[i]);
    }
}

static int hash_stream(int fd, XXH64_state_t *state)
{
    uint8_t buf[1 << 16];
    ssize_t n;
    while ((n = read(fd, buf, sizeof buf)) != 0) {
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        if (n > 0) {
            XXH64_update(state, buf, (size_t)n);
        }
    }
    return 0;
}

int provenance_file_hash(const char *path, char *buf, unsigned long cap, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(e, ERR_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    }
    XXH64_state_t *state = XXH64_createState();
    CHECK(state != NULL);
    XXH64_reset(state, 0);
    int status = hash_stream(fd, state);
    if (status != 0) {
        err_set(e, ERR_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    } else {
        snprintf(buf, cap, "%016llx", (unsigned long long)XXH64_digest(state));
    }
    XXH64_freeState(state);
    close(fd);
    return status;
}
