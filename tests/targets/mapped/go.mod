module example.org/mapped

go 1.19
