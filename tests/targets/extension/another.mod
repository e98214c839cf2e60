module example.org/another

go 1.19
