foreach(name err mem str units rng dist config opt json_text)
  tm_unit_test(${name} LIBS tm_core)
endforeach()
