//go:build !go1.24

package main

func makeCleanups(int) { panic("this release has no cleanups") }
