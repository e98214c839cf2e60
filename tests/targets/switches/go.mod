module example.org/switches

go 1.19
