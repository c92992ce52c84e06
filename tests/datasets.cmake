foreach(name quantile dataset trace prompt ids_cache)
  tm_unit_test(${name} LIBS tm_datasets)
endforeach()
