module example.org/waits

go 1.19
