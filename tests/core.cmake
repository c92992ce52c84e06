foreach(name err mem str units rng dist config opt json_text http_certificates)
  tm_unit_test(${name} LIBS tm_core)
endforeach()

# The HTTP client.
add_library(tm_answers STATIC support/answers.c)
target_link_libraries(tm_answers PUBLIC tm_core)
tm_unit_test(http_answer LIBS tm_answers)

add_library(tm_http_rig STATIC support/http_rig.c)
target_link_libraries(tm_http_rig PUBLIC tm_core PkgConfig::CMOCKA)
tm_unit_test(http LIBS tm_http_rig)
tm_unit_test(http_moments LIBS tm_http_rig)
