module example.org/charged

go 1.19
