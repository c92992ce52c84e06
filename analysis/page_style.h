/*
 * The style sheet of the page: system fonts, light and dark, print. No external resource.
 */
#pragma once

extern const char page_style[];
