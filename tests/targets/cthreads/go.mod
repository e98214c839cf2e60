module example.org/cthreads

go 1.19
