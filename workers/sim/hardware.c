#include "workers/sim/hardware.h"

#include <stdio.h>
#include <string.h>

#define GB 1e9
#define TF 1e12

/*
 * Makers give matrix rates with sparsity, which is twice the dense rate, and links both ways together,
 * which is twice one way: both are halved here. GB are 10^9 bytes, as in the data sheets.
 */
static const struct hardware rows[] = {
    // NVIDIA A100 Tensor Core GPU data sheet (2021): 40GB and 80GB SXM; NVLink 600 GB/s
    {"a100-40g", 40 * GB, 1555 * GB, 312 * TF, 300 * GB},
    {"a100-80g", 80 * GB, 2039 * GB, 312 * TF, 300 * GB},
    // NVIDIA H100 Tensor Core GPU data sheet: SXM5, NVLink 900 GB/s; PCIe, NVLink bridge 600 GB/s
    {"h100-sxm", 80 * GB, 3350 * GB, 989.5 * TF, 450 * GB},
    {"h100-pcie", 80 * GB, 2000 * GB, 756 * TF, 300 * GB},
    // NVIDIA H200 Tensor Core GPU data sheet: SXM, NVLink 900 GB/s
    {"h200", 141 * GB, 4800 * GB, 989.5 * TF, 450 * GB},
    // NVIDIA DGX B200 data sheet, an eighth: 1,440 GB, 64 TB/s, 14.4 TB/s of NVLink
    {"b200", 180 * GB, 8000 * GB, 2250 * TF, 900 * GB},
    // NVIDIA L4 and L40S data sheets: PCIe 4.0 x16, 64 GB/s both ways
    {"l4", 24 * GB, 300 * GB, 121 * TF, 32 * GB},
    {"l40s", 48 * GB, 864 * GB, 362 * TF, 32 * GB},
    // AMD Instinct MI300X data sheet: 128 GB/s Infinity Fabric both ways between two devices, 7 links
    {"mi300x", 192 * GB, 5300 * GB, 1307.4 * TF, 448 * GB},
};

const struct hardware *hardware_row(int i)
{
    return i >= 0 && i < (int)(sizeof rows / sizeof *rows) ? &rows[i] : NULL;
}

int hardware_find(const char *name, struct hardware *out, struct err *e)
{
    char known[256] = "";
    const struct hardware *h;
    for (int i = 0; (h = hardware_row(i)) != NULL; i++) {
        if (strcmp(h->name, name) == 0) {
            *out = *h;
            return 0;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i > 0 ? ", " : "", h->name);
    }
    return err_set(e, ERR_INPUT, "hardware '%.40s': unknown; there are %s", name, known);
}
