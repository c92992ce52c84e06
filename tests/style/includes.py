"""Include direction between folders, owners of third-party headers, own header first.

The folders and the owners are those of docs/architecture.md; the CMake link lists hold the same
direction at link time, this test holds it for headers.
"""

import fnmatch
import pathlib
import re

import source_tree

# folder: what its files may include
MAY_INCLUDE = {
    "core": ["core/*"],
    "model": ["core/*", "model/*"],
    "datasets": ["core/*", "model/*", "datasets/*"],
    "workers": ["core/*", "model/*", "workers/*", "results/record.h", "results/gpus.h"],
    "loadgen": ["core/*", "model/*", "datasets/*", "loadgen/*", "results/record.h"],
    "results": ["core/*", "results/*"],
    "analysis": ["core/*", "results/*", "analysis/*"],
    "cli": ["*"],
    "tests": ["*"],
}
# third-party header: the .c files that may include it (tests may use what they test against)
OWNERS = {
    "mpi.h": ["core/comm_mpi*.[ch]", "tests/*"],
    "hdf5*.h": ["results/store*.[ch]", "tests/*"],
    "H5*.h": ["results/store*.[ch]", "tests/*"],
    "yaml.h": ["core/config.c"],
    "curl/curl.h": ["core/http_curl.c", "core/http_get.c"],
    "hwloc.h": ["core/cores.c"],
    "Random123/*": ["core/rng.c", "tests/*"],
    "microhttpd.h": ["core/httpd.c"],
    "curl/*": ["core/http_curl.c", "core/http_get.c"],
    "nccl.h": ["tests/cuda/nccl_header.c"],  # the program has its own words for it
    "cuda*.h": ["workers/cuda/*", "tests/cuda/*", "tests/support/gpu_on_cpu/*",
                "tests/support/nccl_stand_in/*"],
    "cublas*.h": ["workers/cuda/*", "tests/cuda/*", "tests/support/gpu_on_cpu/*"],
    "jansson.h": ["*"],  # JSON is spoken in many places: its values are the common language
    "xxhash.h": ["*"],
    "utf8proc.h": ["model/normal_form.c"],
    "cmocka.h": ["tests/*"],
}
SYSTEM = """
    assert ctype dirent dlfcn errno fcntl fenv float fnmatch ftw getopt glob immintrin inttypes
    limits link locale malloc math netdb poll pthread pwd sched semaphore setjmp signal spawn
    stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings
    syscall termios tgmath time unistd wchar wctype x86intrin cpuid elf execinfo
""".split()
CXX = "algorithm atomic functional numeric random vector".split()  # for what nvcc also compiles
SYSTEM_FOLDERS = ("arpa/", "linux/", "net/", "netinet/", "sys/")
# Headers that show an owned third-party header to the files of its owner: only those include them.
inner_headers = {}
GENERATED = {"version.h"}  # made by core/version.cmake

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')


def allowed(path, patterns):
    return any(fnmatch.fnmatchcase(path, p) for p in patterns)


def check_project_header(path, header):
    if "../" in header or header.startswith("./"):
        return f'"{header}": includes are written from the root of the project'
    if header in GENERATED:
        return None
    if not header.endswith((".h", ".cuh")):
        return f'"{header}": only headers are included'
    if not (source_tree.ROOT / header).is_file():
        return f'"{header}": no such file from the root of the project'
    if not allowed(path, inner_headers.get(header, ["*"])):
        return f'"{header}": an inner header of {", ".join(inner_headers[header])}'
    folder = path.split("/")[0]
    if not allowed(header, MAY_INCLUDE.get(folder, ["*"])):
        return f'"{header}": {folder} may include {", ".join(MAY_INCLUDE[folder])} only'
    return None


def check_outside_header(path, header):
    if header.startswith(SYSTEM_FOLDERS) or header.removesuffix(".h") in SYSTEM:
        return None
    if header in CXX and allowed(path, ["tests/cuda/*", "tests/support/gpu_on_cpu/*"]):
        return None
    owners = [o for pattern, o in OWNERS.items() if fnmatch.fnmatchcase(header, pattern)]
    if not owners:
        return f"<{header}>: neither a known system header nor a library's with an owner"
    if not allowed(path, owners[0]):
        return f"<{header}>: its owner is {', '.join(owners[0])}"
    if not path.endswith((".c", ".cu")) and owners[0] != ["*"]:
        inner_headers[path] = owners[0]
    elif not path.endswith((".c", ".cu")):
        return f"<{header}>: third-party headers appear in .c files only"
    return None


def check_file(path):
    includes = []
    for number, line in enumerate(source_tree.text(path).splitlines(), 1):
        found = INCLUDE.match(line)
        if found:
            includes.append((number, *found.groups()))
    for number, kind, header in includes:
        check = check_project_header if kind == '"' else check_outside_header
        finding = check(path, header)
        if finding:
            yield f"{path}:{number}: {finding}"
    own = str(pathlib.PurePosixPath(path).with_suffix(".h"))
    if path.endswith(".c") and (source_tree.ROOT / own).is_file():
        if not includes or includes[0][1:] != ('"', own):
            yield f'{path}: the first include must be its own header, "{own}"'
    if path.endswith(".h") and "#pragma once" not in source_tree.text(path):
        yield f"{path}: no #pragma once"


def main():
    # headers first: who includes an inner one is judged after it is known as such
    paths = sorted(source_tree.tracked("*.c", "*.h", "*.cu"), key=lambda p: not p.endswith(".h"))
    findings = [finding for path in paths for finding in check_file(path)]
    source_tree.finish(findings, f"includes of {len(paths)} files")


main()
