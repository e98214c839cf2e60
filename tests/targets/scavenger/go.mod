module example.org/scavenger

go 1.19
