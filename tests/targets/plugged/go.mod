module example.org/plugged

go 1.19
