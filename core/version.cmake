cmake_minimum_required(VERSION 3.25)
# Writes version.h, only when its text changed (so that nothing recompiles for nothing).
set(sha "unknown")
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
    OUTPUT_VARIABLE sha OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT sha)
  set(sha "unknown")
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#pragma once
#define TIDEMARK_VERSION \"@VERSION@\"
#define TIDEMARK_GIT_SHA \"@sha@\"
#define TIDEMARK_BUILD_FLAGS \"@FLAGS@\"
" @ONLY)
