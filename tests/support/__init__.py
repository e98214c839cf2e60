"""What live tests stand on: toolchains, target programs, and processes that are started and ended by pid."""
