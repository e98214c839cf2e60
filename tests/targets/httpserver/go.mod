module example.org/httpserver

go 1.19
