module example.org/holders

go 1.19
