module example.org/allocloop

go 1.19
