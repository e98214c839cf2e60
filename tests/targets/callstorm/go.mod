module example.org/callstorm

go 1.19
