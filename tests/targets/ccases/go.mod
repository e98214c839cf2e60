module example.org/ccases

go 1.19
