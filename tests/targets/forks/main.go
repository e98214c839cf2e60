// Forks does what the lines on its standard input say, and answers each with one line: "here" takes 64 MB from the
// heap, "fork" lets a copy of the process do that (without an exec, and with the one thread that fork(2) leaves it), and
// answers with the copy's wait status, "end" ends it.
//
// Where the runtime had asked the goroutine to yield right before the fork, the copy does that, and waits for ever for
// threads that it has not. Such a copy is killed, and another one made.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

const size = 64 << 20

var kept []byte

func take() {
	kept = make([]byte, size)
	for at := 0; at < len(kept); at += 4096 {
		kept[at] = 1
	}
}

func fork() string {
	for {
		status := forkOnce()
		if !status.Signaled() || status.Signal() != syscall.SIGKILL {
			return fmt.Sprintf("exit status %d, signal %d", status.ExitStatus(), status.Signal())
		}
	}
}

func forkOnce() syscall.WaitStatus {
	runtime.Gosched() // a new time slice: no yield is asked for soon
	child, _, failure := syscall.RawSyscall(syscall.SYS_FORK, 0, 0, 0)
	if failure != 0 {
		panic(failure)
	}
	if child == 0 {
		take()
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 7, 0, 0)
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var status syscall.WaitStatus
		done, err := syscall.Wait4(int(child), &status, syscall.WNOHANG, nil)
		if err != nil {
			panic(err)
		}
		if done != 0 {
			return status
		}
		if time.Since(begin) > 3*time.Second {
			syscall.Kill(int(child), syscall.SIGKILL)
		}
	}
}

func main() {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "here":
			take()
			fmt.Println("done")
		case "fork":
			fmt.Println(fork())
		case "end":
			return
		}
	}
}
