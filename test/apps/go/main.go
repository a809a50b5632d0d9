// Goroutines that count and send to each other, garbage, timers, and a TCP listener that tells of them all.
// Argument: the port.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

type state struct {
	Spins, Passed, Rebuilt, Ticks, Sleeps, Collections, Wrong int64
	LongestGapMs                                              float64
}

var now state

func wrong(what string) {
	atomic.AddInt64(&now.Wrong, 1)
	fmt.Println("WRONG", what)
}

// Never calls anything: only a signal of the runtime makes it give way.
func spin() {
	x := uint64(1)
	for i := int64(1); ; i++ {
		x = x*6364136223846793005 + 1442695040888963407
		if i%1_000_000 == 0 {
			atomic.AddInt64(&now.Spins, 1)
		}
		if x == 0 && i < 0 {
			return
		}
	}
}

// A ring of goroutines that hand one number round, adding one each.
func ring(members int) {
	first := make(chan int64)
	in := first
	for i := 0; i < members; i++ {
		out := make(chan int64)
		go func(in, out chan int64) {
			for n := range in {
				out <- n + 1
			}
		}(in, out)
		in = out
	}
	for n := int64(0); ; {
		first <- n
		got := <-in
		if got != n+int64(members) {
			wrong("ring")
		}
		n = got
		atomic.AddInt64(&now.Passed, 1)
		time.Sleep(100 * time.Microsecond)
	}
}

// Garbage that must not be taken too early.
func churn() {
	kept := map[int][]byte{}
	for round := 0; ; round++ {
		for i := 0; i < 500; i++ {
			key := (round*31 + i) % 2000
			if old, ok := kept[key]; ok && (len(old) != key+1 || old[key] != byte(key)) {
				wrong("heap")
			}
			bytes := make([]byte, key+1)
			bytes[key] = byte(key)
			kept[key] = bytes
		}
		if round%20 == 0 {
			runtime.GC()
		}
		atomic.AddInt64(&now.Rebuilt, 1)
		time.Sleep(time.Millisecond)
	}
}

func tick() {
	last := time.Now()
	for range time.Tick(5 * time.Millisecond) {
		gap := float64(time.Since(last).Microseconds()) / 1000
		last = time.Now()
		if gap < 0 {
			wrong("clock")
		}
		if gap > now.LongestGapMs {
			now.LongestGapMs = gap
		}
		atomic.AddInt64(&now.Ticks, 1)
	}
}

func main() {
	go spin()
	go ring(50)
	go churn()
	go tick()
	for i := 0; i < 20; i++ {
		go func(i int) {
			for {
				time.Sleep(time.Duration(i+1) * time.Millisecond)
				atomic.AddInt64(&now.Sleeps, 1)
			}
		}(i)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("listening")
	for {
		connection, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		answer := now
		answer.Collections = int64(memory.NumGC)
		_ = json.NewEncoder(connection).Encode(answer)
		connection.Close()
	}
}
