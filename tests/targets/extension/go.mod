module example.org/extension

go 1.19
