module example.org/allocs

go 1.19
