module gomem.test/profiles

go 1.19
