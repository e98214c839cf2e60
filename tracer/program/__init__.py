"""What an executable is: a Go program with its release, layout, functions and globals."""
