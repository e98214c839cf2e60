module example.org/forged

go 1.19
