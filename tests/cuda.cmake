# Device code. Every test is built for the CPU stand-in (support/gpu_on_cpu), where it runs on any machine:
# unit.cuda_NAME; under sanitizers only with `./run-tests --full`, since that takes minutes. With TIDEMARK_CUDA nvcc
# compiles the kernels, and `gpu_tests` builds the same tests for a GPU: gpu.NAME of `ctest -C gpu`, which skips
# where there is none.
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  return() # the stand-in's threads are switched by hand
endif()
set(tm_device_usual "")
if(TIDEMARK_ASAN)
  set(tm_device_usual CONFIGURATIONS full)
endif()
add_custom_target(device_tests)
enable_language(CXX)
set(CMAKE_CXX_STANDARD 17)

file(GLOB tm_device_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/workers/cuda/*.cu)
file(GLOB tm_device_host_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/workers/cuda/*.c)
list(REMOVE_ITEM tm_device_host_sources ${PROJECT_SOURCE_DIR}/workers/cuda/plugin.c)
set_source_files_properties(${tm_device_sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS -xc++)
add_library(tm_gpu_on_cpu STATIC EXCLUDE_FROM_ALL support/gpu_on_cpu/gpu_on_cpu.cpp support/gpu_on_cpu/cublasLt.cpp
            support/gpu_on_cpu/ipc.cpp ${tm_device_sources} ${tm_device_host_sources})
target_include_directories(tm_gpu_on_cpu BEFORE PUBLIC support/gpu_on_cpu ${PROJECT_SOURCE_DIR})
target_compile_options(tm_gpu_on_cpu PUBLIC -Wall -Wextra -O2 -g1 -ffp-contract=off
                       -ftls-model=initial-exec)
target_compile_options(tm_gpu_on_cpu PRIVATE -fvisibility=hidden) # calls within the shared object cost no table
target_compile_definitions(tm_gpu_on_cpu PRIVATE _GNU_SOURCE)
set_target_properties(tm_gpu_on_cpu PROPERTIES POSITION_INDEPENDENT_CODE ON)
if(TIDEMARK_WERROR)
  target_compile_options(tm_gpu_on_cpu PUBLIC -Werror)
endif()
if(TIDEMARK_ASAN)
  target_compile_options(tm_gpu_on_cpu PUBLIC -fsanitize=address,undefined -fno-sanitize-recover=undefined)
  target_link_options(tm_gpu_on_cpu PUBLIC -fsanitize=address,undefined)
else()
  add_custom_target(tm_device_tests_usual ALL DEPENDS device_tests)
endif()

# The whole backend on the stand-in, for tests of what uses it: TIDEMARK_CUDA_PLUGIN names the file.
add_library(tm_cuda_on_cpu MODULE EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/workers/cuda/plugin.c)
add_dependencies(tm_cuda_on_cpu tm_version)
add_dependencies(device_tests tm_cuda_on_cpu)
target_include_directories(tm_cuda_on_cpu PRIVATE ${PROJECT_BINARY_DIR}/generated)
target_link_libraries(tm_cuda_on_cpu PRIVATE tm_gpu_on_cpu)
set_target_properties(tm_cuda_on_cpu PROPERTIES PREFIX "" OUTPUT_NAME tidemark-cuda-on-cpu LINKER_LANGUAGE CXX)
set(tm_cuda_on_cpu ${CMAKE_CURRENT_BINARY_DIR}/tidemark-cuda-on-cpu.so)

if(TIDEMARK_CUDA)
  add_custom_target(gpu_tests)
endif()

function(tm_device_test name)
  cmake_parse_arguments(arg "" "" "LIBS" ${ARGN})
  add_executable(test_cuda_${name} EXCLUDE_FROM_ALL cuda/test_${name}.cpp)
  add_dependencies(device_tests test_cuda_${name})
  target_link_libraries(test_cuda_${name} PRIVATE tm_gpu_on_cpu ${arg_LIBS} $<LINK_ONLY:tm_workers>
    $<LINK_ONLY:tm_core> PkgConfig::CMOCKA)
  add_test(NAME unit.cuda_${name} ${tm_device_usual} COMMAND test_cuda_${name})
  set_tests_properties(unit.cuda_${name} PROPERTIES TIMEOUT 300
    ENVIRONMENT "TIDEMARK_SOURCE=${PROJECT_SOURCE_DIR}")
  if(TIDEMARK_CUDA)
    set(copy ${CMAKE_CURRENT_BINARY_DIR}/gpu_${name}.cu)
    file(CONFIGURE OUTPUT ${copy} CONTENT "#include \"tests/cuda/test_${name}.cpp\"\n")
    add_executable(gpu_${name} EXCLUDE_FROM_ALL ${copy})
    add_dependencies(gpu_tests gpu_${name})
    target_link_libraries(gpu_${name} PRIVATE tm_cuda ${arg_LIBS} $<LINK_ONLY:tm_workers> $<LINK_ONLY:tm_core>
      PkgConfig::CMOCKA)
    target_include_directories(gpu_${name} PRIVATE ${PROJECT_SOURCE_DIR})
    add_test(NAME gpu.${name} CONFIGURATIONS gpu COMMAND gpu_${name})
    set_tests_properties(gpu.${name} PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS gpu
      ENVIRONMENT "TIDEMARK_SOURCE=${PROJECT_SOURCE_DIR}")
  endif()
endfunction()

# What runs on the backend: unit.cuda_NAME on the stand-in, gpu.NAME with the real one; as so many ranks of a job.
function(tm_backend_test name)
  cmake_parse_arguments(arg "" "RANKS" "" ${ARGN})
  set(launch "")
  if(arg_RANKS)
    set(launch ${TM_MPIRUN} -np ${arg_RANKS})
  endif()
  add_executable(test_cuda_${name} EXCLUDE_FROM_ALL cuda/test_${name}.c)
  add_dependencies(device_tests test_cuda_${name})
  target_link_libraries(test_cuda_${name} PRIVATE tm_test_oracle)
  set_target_properties(test_cuda_${name} PROPERTIES ENABLE_EXPORTS ON)
  target_link_options(test_cuda_${name} PRIVATE -Wl,--undefined=comm_irecv) # the backend's hops want the comm
  add_test(NAME unit.cuda_${name} ${tm_device_usual} COMMAND ${launch} $<TARGET_FILE:test_cuda_${name}>)
  set_tests_properties(unit.cuda_${name} PROPERTIES TIMEOUT 900
    ENVIRONMENT "TIDEMARK_CUDA_PLUGIN=${tm_cuda_on_cpu};${TM_MPI_ENVIRONMENT}")
  if(TIDEMARK_CUDA)
    add_dependencies(gpu_tests test_cuda_${name} tidemark_cuda)
    add_test(NAME gpu.${name} CONFIGURATIONS gpu COMMAND ${launch} $<TARGET_FILE:test_cuda_${name}>)
    set_tests_properties(gpu.${name} PROPERTIES TIMEOUT 900 SKIP_RETURN_CODE 77 LABELS gpu
      ENVIRONMENT "TIDEMARK_CUDA_PLUGIN=$<TARGET_FILE:tidemark_cuda>;${TM_MPI_ENVIRONMENT}")
  endif()
endfunction()

tm_backend_test(families)
tm_backend_test(tensor)
tm_backend_test(splits RANKS 4)
tm_full_test(cuda_splits 1800 "TIDEMARK_FULL=1;TIDEMARK_CUDA_PLUGIN=${tm_cuda_on_cpu};${TM_MPI_ENVIRONMENT}"
  ${TM_MPIRUN} -np 4 $<TARGET_FILE:test_cuda_splits>)
set_property(TEST unit.cuda_splits full.cuda_splits APPEND PROPERTY ENVIRONMENT
  "GPU_ON_CPU_DEVICES=4" "TIDEMARK_NCCL=$<TARGET_FILE:nccl-stand-in>")

tm_device_test(device)
tm_device_test(gemm)
tm_device_test(matmul)
tm_device_test(norm)
tm_device_test(cache)
tm_device_test(attention)
# Blocks with less shared memory, as 8.0 and 8.6 have them: other kernels.
foreach(bytes 166912 101376)
  add_test(NAME unit.cuda_attention_${bytes} ${tm_device_usual} COMMAND test_cuda_attention)
  set_tests_properties(unit.cuda_attention_${bytes} PROPERTIES TIMEOUT 300
    ENVIRONMENT "TIDEMARK_SOURCE=${PROJECT_SOURCE_DIR};GPU_ON_CPU_SHARED_BYTES=${bytes}")
endforeach()
tm_device_test(attention_work)
tm_device_test(embed)
tm_device_test(gate)
tm_device_test(route)
tm_device_test(head)
tm_device_test(sample)
tm_device_test(preset)
tm_device_test(gpu)
tm_device_test(device_encode)
tm_device_test(device_fill)
tm_device_test(device_weights LIBS $<LINK_ONLY:tm_gguf_writer>)
tm_device_test(gpu_ceilings)
tm_device_test(gpu_ipc)
tm_device_test(group)
tm_device_test(edge_ipc)
tm_device_test(rank_memory)

# NCCL, or what stands in for it; its own header, where there is one, against what we say of it.
if(TIDEMARK_CUDA)
  find_path(TIDEMARK_NCCL_HEADER nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  if(TIDEMARK_NCCL_HEADER)
    add_library(nccl_header OBJECT EXCLUDE_FROM_ALL cuda/nccl_header.c)
    add_dependencies(device_tests nccl_header)
    target_include_directories(nccl_header PRIVATE ${PROJECT_SOURCE_DIR} ${TIDEMARK_NCCL_HEADER}
                               ${CUDAToolkit_INCLUDE_DIRS})
  endif()
endif()
add_library(nccl-stand-in SHARED EXCLUDE_FROM_ALL support/nccl_stand_in/nccl_stand_in.c)
target_include_directories(nccl-stand-in BEFORE PRIVATE support/gpu_on_cpu)
target_link_libraries(nccl-stand-in PRIVATE tm_flags)
set_target_properties(nccl-stand-in PROPERTIES C_VISIBILITY_PRESET hidden)
foreach(name nccl nccl_ranks)
  tm_device_test(${name})
  add_dependencies(test_cuda_${name} nccl-stand-in)
  set_property(TEST unit.cuda_${name} APPEND PROPERTY ENVIRONMENT "TIDEMARK_NCCL=$<TARGET_FILE:nccl-stand-in>")
endforeach()

# What is measured on a GPU (tests/perf/gpu.py); on the stand-in a few small cases show that it works.
add_executable(test_cuda_perf_attention EXCLUDE_FROM_ALL perf/attention_gpu.cpp)
add_dependencies(device_tests test_cuda_perf_attention)
target_link_libraries(test_cuda_perf_attention PRIVATE tm_gpu_on_cpu $<LINK_ONLY:tm_core>)
add_test(NAME unit.cuda_perf_attention ${tm_device_usual} COMMAND test_cuda_perf_attention)
set_tests_properties(unit.cuda_perf_attention PROPERTIES TIMEOUT 300)
if(TIDEMARK_CUDA)
  set(copy ${CMAKE_CURRENT_BINARY_DIR}/gpu_perf_attention.cu)
  file(CONFIGURE OUTPUT ${copy} CONTENT "#include \"tests/perf/attention_gpu.cpp\"\n")
  add_executable(gpu_perf_attention EXCLUDE_FROM_ALL ${copy})
  add_dependencies(gpu_tests gpu_perf_attention)
  target_link_libraries(gpu_perf_attention PRIVATE tm_cuda $<LINK_ONLY:tm_core>)
  target_include_directories(gpu_perf_attention PRIVATE ${PROJECT_SOURCE_DIR})
endif()

# Commands on the stand-in's backend.
if(NOT TIDEMARK_ASAN)
  tm_cli_test(cuda TIMEOUT 300)
  tm_cli_test(bench_cuda TIMEOUT 300 PROCESSORS 1)
  tm_cli_test(crash_cuda TIMEOUT 300 PROCESSORS 2 LABELS crash)
  add_test(NAME full.crash_cuda CONFIGURATIONS full
           COMMAND ${TM_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/cli/crash_cuda.py)
  get_test_property(cli.crash_cuda ENVIRONMENT tm_crash_environment)
  set_tests_properties(full.crash_cuda PROPERTIES TIMEOUT 1800 LABELS full PROCESSORS 2
    ENVIRONMENT "${tm_crash_environment};TIDEMARK_CRASH_CUDA=all")
  set_property(TEST cli.cuda cli.bench_cuda cli.crash_cuda full.crash_cuda APPEND PROPERTY ENVIRONMENT
    "TIDEMARK_CUDA_PLUGIN=${tm_cuda_on_cpu}" "TIDEMARK_NCCL=$<TARGET_FILE:nccl-stand-in>")
  add_test(NAME deploy.gpu_check COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/gpu_check.sh ${PROJECT_BINARY_DIR})
  set_tests_properties(deploy.gpu_check PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 PROCESSORS 2)
endif()
