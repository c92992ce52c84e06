/* What this binary is made of: tidemark's own version and those of its libraries. */
#pragma once

#include <stdio.h>

void about_print(FILE *out);
