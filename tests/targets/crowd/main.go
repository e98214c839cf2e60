// Crowd has goroutines that stay, that come and go, and that have ended. It obeys one command a line on fd 0, and answers
// each with a line of JSON: its runtime.MemStats and its number of goroutines. End of file ends it.
//
//	park N    N more goroutines wait in main.parked for ever
//	end N     N goroutines live at the same time, and have ended
//	leak N    every millisecond one goroutine more stays in main.leaked, N at most
//	breathe N goroutines of main.pooled become N, one by one, and fewer again, in turns of 600 ms
//	turn      every 2 ms a goroutine comes, and ends; each lives a little longer than the one before
//	swell     goroutines of main.swell come and end after 400 ms, in every second 100 more at the same time
//	deep N    N goroutines wait below 64 KB of their own stack, all of which they have written to
//	hollow N  N goroutines wait on a stack of 128 KB, and have written to little of it
//	sleep N   N goroutines sleep for an hour
//	trace     tells the stacks of all goroutines, too
//	gc        collects garbage
//	gcs       goes on collecting every 50 ms
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var forever = make(chan int)

func parked(started *sync.WaitGroup) {
	started.Done()
	<-forever
}

//go:noinline
func filled(depth int) byte {
	var room [16 << 10]byte
	for at := 0; at < len(room); at += 512 {
		room[at] = byte(depth)
	}
	if depth == 0 {
		<-forever
	} else {
		room[depth] = filled(depth - 1)
	}
	return room[depth]
}

//go:noinline
func large(depth int) int {
	if depth < 0 {
		var room [100 << 10]byte
		for at := range room {
			room[at] = byte(len(os.Args) + at)
		}
		depth = int(room[len(os.Args)])
	}
	<-forever
	return depth
}

func hollow(started *sync.WaitGroup) {
	started.Done()
	large(len(os.Args))
}

func sleeps(started *sync.WaitGroup) {
	started.Done()
	time.Sleep(time.Hour)
}

func deep(started *sync.WaitGroup) {
	started.Done()
	filled(3)
}

func ended(started, done *sync.WaitGroup, release chan int) {
	started.Done()
	<-release
	done.Done()
}

func leaked()              { <-forever }
func pooled(work chan int) { <-work }

func crowd(count int, body func(*sync.WaitGroup)) {
	var started sync.WaitGroup
	started.Add(count)
	for i := 0; i < count; i++ {
		go body(&started)
	}
	started.Wait()
}

func end(count int) {
	var done sync.WaitGroup
	release := make(chan int)
	done.Add(count)
	crowd(count, func(started *sync.WaitGroup) { ended(started, &done, release) })
	close(release)
	done.Wait()
	for runtime.NumGoroutine() > 50 && count > 1000 {
		time.Sleep(time.Millisecond)
	}
}

func leak(most int) {
	for i := 0; i < most; i++ {
		go leaked()
		time.Sleep(time.Millisecond)
	}
}

func breathe(most int) {
	work := make(chan int)
	for {
		for i := 0; i < most; i++ {
			go pooled(work)
			time.Sleep(300 * time.Millisecond / time.Duration(most))
		}
		for i := 0; i < most; i++ {
			work <- i
			time.Sleep(300 * time.Millisecond / time.Duration(most))
		}
	}
}

func turn() {
	var come int64
	for {
		lives := time.Duration(atomic.AddInt64(&come, 1)) * time.Millisecond / 8
		go func() { time.Sleep(lives) }()
		time.Sleep(2 * time.Millisecond)
	}
}

func swell() {
	began, come := time.Now(), 0
	for {
		seconds := time.Since(began).Seconds()
		for ; come < int(125*seconds*seconds); come++ {
			go time.Sleep(400 * time.Millisecond)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func obey(command string, count int) {
	switch command {
	case "park":
		crowd(count, parked)
	case "deep":
		crowd(count, deep)
	case "hollow":
		crowd(count, hollow)
	case "sleep":
		crowd(count, sleeps)
	case "end":
		end(count)
	case "leak":
		go leak(count)
	case "breathe":
		go breathe(count)
	case "turn":
		go turn()
	case "swell":
		go swell()
	case "gc":
		runtime.GC()
	case "gcs":
		go func() {
			for {
				runtime.GC()
				time.Sleep(50 * time.Millisecond)
			}
		}()
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := append(strings.Fields(lines.Text()), "0")
		count, _ := strconv.Atoi(words[1])
		obey(words[0], count)
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		said := map[string]any{"MemStats": stats, "NumGoroutine": runtime.NumGoroutine()}
		if words[0] == "trace" {
			trace := make([]byte, 1<<24)
			said["Trace"] = string(trace[:runtime.Stack(trace, true)])
		}
		told, _ := json.Marshal(said)
		fmt.Println(string(told))
	}
}
