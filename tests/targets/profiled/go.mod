module example.org/profiled

go 1.17
