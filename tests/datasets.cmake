foreach(name quantile dataset trace)
  tm_unit_test(${name} LIBS tm_datasets)
endforeach()
