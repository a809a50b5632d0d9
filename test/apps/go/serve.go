// An HTTP server that tells on which connection a request came, and as the how many-th. Argument: the address.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
)

type connection struct{ number, requests int64 }
type key struct{}

func main() {
	var connections int64
	server := http.Server{
		ConnContext: func(c context.Context, _ net.Conn) context.Context {
			return context.WithValue(c, key{}, &connection{number: atomic.AddInt64(&connections, 1)})
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := r.Context().Value(key{}).(*connection)
			c.requests++
			fmt.Fprintf(w, "%d %d %s", c.number, c.requests, r.URL.Path)
		}),
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("listening")
	panic(server.Serve(listener))
}
