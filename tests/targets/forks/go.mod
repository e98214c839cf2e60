module example.org/forks

go 1.19
