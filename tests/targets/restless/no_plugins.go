//go:build !plugins

package main

func load(path string) func(int) { panic("built without plugins: " + path) }
