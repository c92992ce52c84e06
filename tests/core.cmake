foreach(name err mem str units rng dist config opt json_text http_certificates)
  tm_unit_test(${name} LIBS tm_core)
endforeach()
