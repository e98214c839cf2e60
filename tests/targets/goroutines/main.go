// Goroutines parks goroutines in every way that there is, and writes its own profile of them: what gomem's must equal.
//
// Once all are parked, it writes DIRECTORY/profile (pprof's goroutine profile, debug=0) and DIRECTORY/stacks (debug=2),
// says "ready", and does nothing any more, unless told to. What wrote them parks in main.writer. End of file on fd 0
// ends it.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"syscall"
	"time"
)

var (
	directory = flag.String("directory", ".", "where the profiles go")
	count     = flag.Int("count", 3, "goroutines of each kind")
	more      = flag.Int("more", 0, "how many more to park in one place")
	spin      = flag.Bool("spin", false, "one more does not park: it is stopped by a signal and never goes on")
	run       = flag.Int("run", 0, "goroutines that never park")
	restless  = flag.Int("restless", 0, "goroutines that go on and park again and again")
	forever   = make(chan int)
	started   sync.WaitGroup
	mutex     sync.Mutex
	readWrite sync.RWMutex
	group     sync.WaitGroup
	condition = sync.NewCond(new(sync.Mutex))
	sink      byte
)

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// Inlined into each other, and all into their caller.
func wait()       { <-forever }
func waitTwice()  { wait() }
func waitThrice() { waitTwice() }

//go:noinline
func inlined() { waitThrice() }

//go:noinline
func deep(depth int) int {
	if depth == 0 {
		waitThrice()
		return 0
	}
	return deep(depth-1) + 1
}

// Its level is inlined, so that a stack may be cut in the middle of what is one function in the machine.
func level(depth int) {
	if depth == 0 {
		wait()
		return
	}
	below(depth - 1)
}

//go:noinline
func below(depth int) { level(depth); sink++ }

//go:noinline
func large(depth int) byte {
	var room [20000]byte
	if depth == 0 {
		wait()
	} else {
		room[depth] = large(depth - 1)
	}
	return room[len(os.Args)]
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

func (p *pair[K, V]) park() { <-forever; runtime.KeepAlive(p) }

//go:noinline
func generic[T comparable](value T) { (&pair[T, int]{key: value}).park() }

// Methods reached through an embedded pointer, a value and an interface: their wrappers are generated.
type inner struct{ size int }

func (i *inner) Park() { <-forever; i.size++ }

type outer struct{ *inner }

type value struct{ size int }

func (v value) Park() { wait(); sink = byte(v.size) }

type parker interface{ Park() }

//go:noinline
func park(p parker) { p.Park(); sink++ }

func deferred() {
	defer func() {
		recover()
		<-forever
	}()
	panic("on purpose")
}

func faulted() {
	defer func() { waitTwice() }()
	var none *value
	sink = byte(none.size)
}

// A wrapper that panics is told of.
func panicwrapped() {
	defer func() { <-forever }()
	var none *value
	park(none)
}

func nested() {
	defer func() {
		defer func() { <-forever }()
		panic(recover())
	}()
	var zero int
	sink = byte(1 / zero)
}

type holder struct{ name string }

// What a finalizer does belongs to the program.
func finalizer() {
	runtime.SetFinalizer(&holder{"collected"}, func(h *holder) {
		started.Done()
		wait()
	})
}

func labelled() {
	set := []string{}
	for i := 0; i < 20; i++ {
		set = append(set, "key"+strconv.Itoa(i), "value "+strconv.Itoa(i))
	}
	for _, some := range [][]string{{}, {"one", "1"}, {"b", "2", "a", "1"}, {"b", "2", "a", "1"}, {"é\"", ""}, set} {
		some := some
		start(func() { pprof.Do(context.Background(), pprof.Labels(some...), func(context.Context) { <-forever }) })
	}
}

func start(body func()) {
	started.Add(1)
	go func() {
		started.Done()
		body()
	}()
}

func times(body func()) {
	for i := 0; i < *count; i++ {
		start(body)
	}
}

func files() {
	reader, _, err := os.Pipe()
	check(err)
	times(func() { reader.Read(make([]byte, 1)) })
	var ends [2]int
	check(syscall.Pipe(ends[:]))
	times(func() { syscall.Read(ends[0], make([]byte, 1)) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	times(func() { listener.Accept() })
	connection, err := net.Dial("tcp", listener.Addr().String())
	check(err)
	times(func() { connection.Read(make([]byte, 1)) })
}

func synchronised() {
	mutex.Lock()
	readWrite.Lock()
	group.Add(1)
	times(mutex.Lock)
	times(func() { mutex.Lock() })
	times(readWrite.RLock)
	times(readWrite.Lock)
	times(group.Wait)
	times(func() { condition.L.Lock(); condition.Wait() })
	var once sync.Once
	times(func() { once.Do(wait) })
}

func channels() {
	other := make(chan string)
	var none chan int
	times(wait)
	times(inlined)
	times(func() { none <- 1 })
	times(func() { <-none })
	times(func() { other <- "" })
	times(func() { select {} })
	times(func() {
		select {
		case <-forever:
		case other <- "":
		}
	})
	times(func() {
		for range forever {
		}
	})
	times(func() { time.Sleep(time.Hour) })
	times(func() { <-time.After(time.Hour) })
	times(func() { runtime.LockOSThread(); wait() })
}

func calls() {
	times(func() { generic("text") })
	times(func() { generic(1.5) })
	times(func() { generic(pair[int, string]{}) })
	times(func() { park(outer{&inner{1}}) })
	times(func() { park(&value{2}) })
	times(func() { park(value{3}) })
	times((&value{4}).Park)
	times(outer{&inner{5}}.Park)
	times(func() { reflect.ValueOf(value{6}).MethodByName("Park").Call(nil) })
	times(func() { reflect.ValueOf(wait).Call(nil) })
	times(deferred)
	times(faulted)
	times(nested)
	times(panicwrapped)
	for _, depth := range []int{20, 25, 26, 27, 28, 29, 30, 31, 32, 63, 64, 110, 123, 124, 125, 126, 127, 128, 129, 500, 5000} {
		depth := depth
		start(func() { deep(depth) })
		start(func() { below(depth) })
	}
	start(func() { large(0) })
	start(func() { large(40) })
}

// It stays where it is.
func spinning() {
	for {
	}
}

//go:noinline
func runs() {
	for i := 0; ; i++ {
		sink++
	}
}

//go:noinline
func passes(token chan int, depth int) {
	if depth > 0 {
		passes(token, depth-1)
		sink++
		return
	}
	token <- <-token
}

func restlessly(token chan int) {
	for i := 0; ; i++ {
		passes(token, i%20)
	}
}

// What is written when nobody else has a P stays as it is when this thread keeps it.
func keepP() {
	for *spin {
		syscall.RawSyscall(syscall.SYS_PAUSE, 0, 0, 0)
	}
}

func writer() {
	for _, one := range []struct {
		name  string
		debug int
	}{{"profile", 0}, {"stacks", 2}} {
		file, err := os.Create(filepath.Join(*directory, one.name))
		check(err)
		check(pprof.Lookup("goroutine").WriteTo(file, one.debug))
		check(file.Close())
	}
	fmt.Println("ready")
	keepP()
	<-forever
}

func main() {
	flag.Parse()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	channels()
	synchronised()
	files()
	calls()
	labelled()
	coroutines()
	fromC()
	started.Add(1)
	finalizer()
	cleanup()
	for i := 0; i < *more; i++ {
		start(inlined)
	}
	runtime.GC()
	runtime.GC()
	started.Wait()
	for i := 0; i < *run; i++ {
		start(runs)
	}
	token := make(chan int)
	for i := 0; i < *restless; i++ {
		start(func() { restlessly(token) })
	}
	if *restless > 0 {
		token <- 1
	}
	if *spin {
		runtime.GOMAXPROCS(1)
		go spinning()
	}
	time.AfterFunc(300*time.Millisecond, writer)
	for input := make([]byte, 1); ; {
		if got, err := syscall.Read(0, input); got == 0 || (err != nil && err != syscall.EINTR) {
			return
		}
	}
}
