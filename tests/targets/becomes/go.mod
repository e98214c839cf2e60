module example.org/becomes

go 1.19
