module example.org/atlimit

go 1.19
