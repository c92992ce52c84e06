#include "cli/about.h"

#include <jansson.h>
#include <xxhash.h>

#include "core/comm.h"
#include "core/config.h"
#include "core/rng.h"
#include "results/store.h"
#include "version.h"

void about_print(FILE *out)
{
    fprintf(out, "tidemark %s (%s)\n", TIDEMARK_VERSION, TIDEMARK_GIT_SHA);
    fprintf(out, "compiler   %s\n", __VERSION__);
    fprintf(out, "MPI        %s\n", comm_library());
    fprintf(out, "HDF5       %s\n", store_library());
    fprintf(out, "jansson    %s\n", JANSSON_VERSION);
    fprintf(out, "xxHash     %d.%d.%d\n", XXH_VERSION_MAJOR, XXH_VERSION_MINOR,
            XXH_VERSION_RELEASE);
    fprintf(out, "libyaml    %s\n", config_library());
    fprintf(out, "Random123  %s\n", rng_library());
    fprintf(out, "schema     %s %s\n", STORE_SCHEMA_NAME, STORE_SCHEMA_VERSION);
}
