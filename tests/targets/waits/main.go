// Waits waits in all the ways that a Go program has: in nanosleep, in a read that blocks its thread, in epoll (through
// the runtime and by hand), in futexes; and it computes and allocates beside. It counts what went wrong in each, and
// answers each line on standard input with the counts in JSON. To each SIGUSR1 it says "usr1".
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var storm = flag.Int("storm", 0, "goroutines that start threads which end at once, all the time")

type counts struct {
	Rounds       map[string]int64 `json:"rounds"`
	SleepEINTR   int64            `json:"sleep_eintr"`
	ShortSleeps  int64            `json:"short_sleeps"`
	ReadEINTR    int64            `json:"read_eintr"`
	EpollEINTR   int64            `json:"epoll_eintr"`
	NetErrors    int64            `json:"net_errors"`
	OtherErrors  int64            `json:"other_errors"`
	LongestPause int64            `json:"longest_pause_ns"`
}

var (
	said   sync.Mutex
	rounds = map[string]*int64{}
	wrong  counts
	sink   []byte
)

func always(name string, round func()) {
	count := new(int64)
	rounds[name] = count
	go func() {
		runtime.LockOSThread()
		for {
			round()
			atomic.AddInt64(count, 1)
		}
	}()
}

func note(failure syscall.Errno, interrupted *int64) {
	if failure == syscall.EINTR {
		atomic.AddInt64(interrupted, 1)
	} else if failure != 0 {
		atomic.AddInt64(&wrong.OtherErrors, 1)
	}
}

func nanosleep() {
	const length = 20 * time.Millisecond
	begin := time.Now()
	want := syscall.NsecToTimespec(int64(length))
	failure := syscall.Nanosleep(&want, nil)
	if failure != nil {
		note(failure.(syscall.Errno), &wrong.SleepEINTR)
	}
	if time.Since(begin) < length {
		atomic.AddInt64(&wrong.ShortSleeps, 1)
	}
}

func reads() {
	var ends [2]int
	if syscall.Pipe(ends[:]) != nil {
		panic("pipe")
	}
	buffer := make([]byte, 1)
	always("read", func() {
		_, failure := syscall.Read(ends[0], buffer)
		if failure != nil {
			note(failure.(syscall.Errno), &wrong.ReadEINTR)
		}
	})
	always("write", func() {
		syscall.Write(ends[1], []byte{1})
		time.Sleep(5 * time.Millisecond)
	})
}

func epoll() {
	fd, failure := syscall.EpollCreate1(0)
	if failure != nil {
		panic(failure)
	}
	events := make([]syscall.EpollEvent, 1)
	always("epoll", func() {
		if _, failure := syscall.EpollWait(fd, events, 20); failure != nil {
			note(failure.(syscall.Errno), &wrong.EpollEINTR)
		}
	})
}

func netpoll() {
	listener, failure := net.Listen("tcp", "127.0.0.1:0")
	if failure != nil {
		panic(failure)
	}
	go func() {
		for {
			peer, failure := listener.Accept()
			if failure != nil {
				atomic.AddInt64(&wrong.NetErrors, 1)
				continue
			}
			go func() {
				buffer := make([]byte, 1)
				for {
					if _, failure := peer.Read(buffer); failure != nil {
						atomic.AddInt64(&wrong.NetErrors, 1)
						return
					}
					time.Sleep(time.Millisecond)
					peer.Write(buffer)
				}
			}()
		}
	}()
	client, failure := net.Dial("tcp", listener.Addr().String())
	if failure != nil {
		panic(failure)
	}
	buffer := make([]byte, 1)
	always("net", func() {
		client.Write(buffer)
		if _, failure := client.Read(buffer); failure != nil {
			atomic.AddInt64(&wrong.NetErrors, 1)
		}
	})
}

func futex() {
	ping, pong := make(chan bool), make(chan bool)
	always("ping", func() { ping <- true; <-pong })
	always("pong", func() { <-ping; time.Sleep(100 * time.Microsecond); pong <- true })
}

func pauses() {
	last := time.Now()
	always("clock", func() {
		time.Sleep(time.Millisecond)
		now := time.Now()
		if pause := int64(now.Sub(last)); pause > atomic.LoadInt64(&wrong.LongestPause) {
			atomic.StoreInt64(&wrong.LongestPause, pause)
		}
		last = now
	})
}

func threads() {
	for i := 0; i < *storm; i++ {
		always(fmt.Sprint("storm", i), func() {
			done := make(chan bool)
			go func() {
				runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
				done <- true
			}()
			<-done
		})
	}
}

func main() {
	flag.Parse()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGUSR1)
	always("nanosleep", nanosleep)
	reads()
	epoll()
	netpoll()
	futex()
	pauses()
	threads()
	always("compute", func() {
		for i := 0; i < 100; i++ {
			sink = make([]byte, 1<<16)
		}
		time.Sleep(time.Millisecond)
	})
	go func() {
		for range signals {
			said.Lock()
			fmt.Println("usr1")
			said.Unlock()
		}
	}()
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		answer := wrong
		answer.Rounds = map[string]int64{}
		for name, count := range rounds {
			answer.Rounds[name] = atomic.LoadInt64(count)
		}
		text, _ := json.Marshal(answer)
		said.Lock()
		fmt.Println(string(text))
		said.Unlock()
	}
}
