"""The tests of gomem."""
