module example.org/rounds

go 1.19
