module example.org/heapprofile

go 1.19
