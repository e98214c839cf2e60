module example.org/refills

go 1.19
