module example.org/mappings

go 1.19
