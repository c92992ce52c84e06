foreach(name quantile dataset trace json_text prompt ids_cache)
  tm_unit_test(${name} LIBS tm_datasets)
endforeach()
