module example.org/parked

go 1.19
