module example.org/crowd

go 1.19
