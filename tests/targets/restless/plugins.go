//go:build plugins

package main

import (
	"log"
	"plugin"
)

// load loads a plugin that was built from tests/targets/extension, and returns its work.
func load(path string) func(int) {
	loaded, err := plugin.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	work, err := loaded.Lookup("Work")
	if err != nil {
		log.Fatal(err)
	}
	return work.(func(int))
}
