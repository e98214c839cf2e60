package main

import (
	"encoding/json"
	"net"
	"net/http"
	"strconv"
)

type item struct {
	ID    int      `json:"id"`
	Name  string   `json:"name"`
	Price float64  `json:"price"`
	Tags  []string `json:"tags"`
}

// serve answers on a free port of the loopback device, and returns its address.
func serve() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/items", answer)
	go func() { fail(http.Serve(listener, mux)) }()
	return listener.Addr().String()
}

func answer(to http.ResponseWriter, request *http.Request) {
	first, _ := strconv.Atoi(request.URL.Query().Get("first"))
	items := make([]item, 8)
	for i := range items {
		items[i] = item{first + i, "item " + strconv.Itoa(first+i), float64(i) / 4, []string{"new", "small"}}
	}
	to.Header().Set("Content-Type", "application/json")
	if json.NewEncoder(to).Encode(items) == nil {
		requests.Add(1)
	}
}
