module example.org/restless

go 1.19
