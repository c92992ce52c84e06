"""Every external symbol starts with the base name of its file: hist.c defines hist_record.

usage: symbols.py BUILD_FOLDER      looks at every libtm_*.a below it
"""

import pathlib
import re
import subprocess
import sys

import source_tree

# base name: prefixes that its file may define as well
EXCEPTIONS = {
    # allocation that dies has been called x... for decades; arenas are memory too
    "mem": ["xmalloc", "xcalloc", "xrealloc", "xstrdup", "xasprintf", "arena_"],
    "store_column": ["store_columns_"],  # several of them at once
    # store.h's names for giving back what store_read_* filled
    "store_read": ["step_data_free", "store_meta_free"],
}


def defined(library):
    """(object's base name, symbol) for each external definition in the archive."""
    listing = subprocess.run(["nm", "--extern-only", "--defined-only", "--print-file-name",
                              "--format=posix", library],
                             check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        where, symbol = line.split()[:2]  # build/core/libtm_core.a[err.c.o]: err_set T 0 0
        member = where.rstrip(":").split("[")[-1].rstrip("]")
        if not symbol.startswith("DW.ref."):  # the compiler's own, of C++
            yield member.split(".")[0], plain(symbol)


def plain(symbol):
    """A function's name without what C++ adds to it: _Z10norm_queuePK... is norm_queue."""
    mangled = re.match(r"_Z(\d+)(\w+)", symbol)
    return mangled[2][:int(mangled[1])] if mangled else symbol


def belongs(base, symbol):
    if symbol == base or symbol.startswith(base + "_"):
        return True
    return symbol.startswith(tuple(EXCEPTIONS.get(base, ())))


def main():
    # but not the stand-in for CUDA, whose names are CUDA's, and what C++ makes of them
    libraries = sorted(p for p in pathlib.Path(sys.argv[1]).glob("**/libtm_*.a")
                       if p.name != "libtm_gpu_on_cpu.a")
    if not libraries:
        sys.exit(f"{sys.argv[1]}: no libtm_*.a below it")
    findings, count = [], 0
    for library in libraries:
        for base, symbol in defined(library):
            count += 1
            if not belongs(base, symbol):
                findings.append(f"{library.name}: {base}.c defines {symbol}: "
                                f"must start with {base}_ or be static")
    source_tree.finish(findings, f"{count} external symbols of {len(libraries)} libraries")


main()
