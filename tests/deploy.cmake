# The ways of running a job, on the real thing: Slurm's daemons, two hosts of network namespaces, the
# image, a fresh Debian, the bundle in an empty root. What needs root or TIDEMARK_SLOW=1 skips without and says so.
find_program(TM_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH REQUIRED) # Debian's, with its modules
set(tm_deploy ${CMAKE_CURRENT_SOURCE_DIR}/cli)

add_test(NAME deploy.k8s COMMAND ${TM_PYTHON} ${tm_deploy}/k8s.py)
add_test(NAME deploy.slurm COMMAND ${tm_deploy}/slurm.sh $<TARGET_FILE:tidemark>)
add_test(NAME deploy.two_hosts COMMAND ${tm_deploy}/two_hosts.sh $<TARGET_FILE:tidemark>)
add_test(NAME deploy.bundle COMMAND ${tm_deploy}/bundle.sh ${PROJECT_BINARY_DIR})
add_test(NAME deploy.image COMMAND ${tm_deploy}/image.sh)
add_test(NAME deploy.fresh_debian COMMAND ${tm_deploy}/fresh_debian.sh)
set_tests_properties(deploy.k8s PROPERTIES TIMEOUT 60 SKIP_RETURN_CODE 77 LABELS no_asan)
set_tests_properties(deploy.slurm deploy.two_hosts deploy.bundle deploy.image deploy.fresh_debian PROPERTIES
  SKIP_RETURN_CODE 77 RUN_SERIAL ON LABELS no_asan)
set_tests_properties(deploy.slurm PROPERTIES TIMEOUT 400)
set_tests_properties(deploy.two_hosts deploy.bundle PROPERTIES TIMEOUT 300)
set_tests_properties(deploy.image PROPERTIES TIMEOUT 1500)
set_tests_properties(deploy.fresh_debian PROPERTIES TIMEOUT 5400)
