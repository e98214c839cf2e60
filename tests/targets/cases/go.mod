module example.org/cases

go 1.19
