package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

// ask sends one request after the other over one connection, until the server is gone. It uses no http.Client: the
// less it needs of the machine, the more the server gets.
func ask(address string, number int) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		fail(err)
	}
	request := []byte(fmt.Sprintf("GET /items?first=%d HTTP/1.1\r\nHost: %s\r\n\r\n", number, address))
	answers := bufio.NewReader(connection)
	for {
		if _, err := connection.Write(request); err != nil {
			os.Exit(0)
		}
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			os.Exit(0)
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
			fail(fmt.Errorf("status %d: %v", answer.StatusCode, err))
		}
		requests.Add(1)
	}
}
