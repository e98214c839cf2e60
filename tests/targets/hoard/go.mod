module example.org/hoard

go 1.19
