module example.org/grows

go 1.19
