//go:build !cgo

package main

func allocateInC() {}
