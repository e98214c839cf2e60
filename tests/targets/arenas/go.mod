module example.org/arenas

go 1.19
