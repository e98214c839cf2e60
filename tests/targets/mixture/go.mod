module example.org/mixture

go 1.19
