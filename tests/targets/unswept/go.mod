module example.org/unswept

go 1.19
