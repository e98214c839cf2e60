// Refills allocates on command from sites whose counts it knows. A byte of standard input is a command:
//
//	a  allocate from all sites
//	t  allocate two kinds of objects of one size in turns, and never collect meanwhile
//	s  write what has been allocated so far: MemStats.TotalAlloc, MemStats.Mallocs, objects of the tiny allocator beside
//	   others; then a line for each site: its function, objects, bytes that they take; then an empty line
//	x  execute itself anew
//
// Its answer to the first two is a line, "done". Commands allocate nothing but what they say.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"syscall"
)

type record struct {
	next *record
	rest [56]byte
}

type block [512]byte

const (
	fortyKB  = 40 << 10
	megabyte = 1 << 20
)

const (
	plain = iota
	linked
	often
	seldom
	inlined
	few
	forty
	million
	evenly
	oddly
	sites
)

var (
	names  = [sites]string{"plain", "linked", "often", "seldom", "outer", "few", "forty", "million", "evenly", "oddly"}
	sizes  = [sites]int{64, 64, 512, 512, 160, 48, fortyKB, megabyte, 1024, 1024}
	counts [sites]int
	state  = uint64(88172645463325252)

	bytes64   [512]*[64]byte
	records   [512]*record
	blocks    [512]*block
	bytes160  [512]*[160]byte
	bytes48   [512]*[48]byte
	kilobytes [1 << 14]*[1024]byte
	large     [8][]byte
	stats     runtime.MemStats
	samples   = []metrics.Sample{{Name: "/gc/heap/tiny/allocs:objects"}}
	line      = make([]byte, 0, 1<<12)
)

// random is Marsaglia's xorshift.
func random() uint64 {
	state ^= state << 13
	state ^= state >> 7
	state ^= state << 17
	return state
}

//go:noinline
func newPlain() { bytes64[counts[plain]%len(bytes64)] = new([64]byte); counts[plain]++ }

//go:noinline
func newLinked() { records[counts[linked]%len(records)] = new(record); counts[linked]++ }

//go:noinline
func newOften() { blocks[counts[often]%len(blocks)] = new(block); counts[often]++ }

//go:noinline
func newSeldom() { blocks[counts[seldom]%len(blocks)] = new(block); counts[seldom]++ }

func inner() *[160]byte { return new([160]byte) }

//go:noinline
func newOuter() { bytes160[counts[inlined]%len(bytes160)] = inner(); counts[inlined]++ }

//go:noinline
func newFew() { bytes48[counts[few]%len(bytes48)] = new([48]byte); counts[few]++ }

//go:noinline
func newForty() { large[counts[forty]%len(large)] = make([]byte, fortyKB); counts[forty]++ }

//go:noinline
func newMillion() { large[counts[million]%len(large)] = make([]byte, megabyte); counts[million]++ }

//go:noinline
func newEvenly() { kilobytes[counts[evenly]*2%len(kilobytes)] = new([1024]byte); counts[evenly]++ }

//go:noinline
func newOddly() { kilobytes[(counts[oddly]*2+1)%len(kilobytes)] = new([1024]byte); counts[oddly]++ }

// allocate makes objects in no order, so that none of the sites keeps time with the spans.
//
//go:noinline
func allocate() {
	for i := 0; i < 400000; i++ {
		newPlain()
		if random()%4 == 0 {
			newLinked()
		}
		switch random() % 16 {
		case 0, 1, 2:
			newOften()
		case 3:
			newSeldom()
		case 4:
			newOuter()
		}
		if i%2000 == 0 {
			newForty()
		}
		if i%20000 == 0 {
			newMillion()
			newFew()
		}
	}
}

//go:noinline
func takeTurns() {
	before := debug.SetGCPercent(-1)
	for i := 0; i < 4000; i++ {
		newEvenly()
		newOddly()
	}
	debug.SetGCPercent(before)
}

func number(count uint64) { line = append(strconv.AppendUint(line, count, 10), ' ') }

func end() { line[len(line)-1] = '\n' }

func say() {
	runtime.ReadMemStats(&stats) // tells what the caches of the Ps have not told
	metrics.Read(samples)
	line = line[:0]
	number(stats.TotalAlloc)
	number(stats.Mallocs)
	number(samples[0].Value.Uint64())
	end()
	for site := 0; site < sites; site++ {
		line = append(append(line, names[site]...), ' ')
		number(uint64(counts[site]))
		number(uint64(counts[site]) * uint64(sizes[site]))
		end()
	}
	line = append(line, '\n')
	write()
}

func write() {
	for sent := 0; sent < len(line); {
		count, err := syscall.Write(1, line[sent:])
		if err != nil {
			os.Exit(1)
		}
		sent += count
	}
}

func main() {
	var command [1]byte
	for {
		count, err := syscall.Read(0, command[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || count == 0 {
			return
		}
		switch command[0] {
		case 'a':
			allocate()
			line = append(line[:0], "done\n"...)
			write()
		case 't':
			takeTurns()
			line = append(line[:0], "done\n"...)
			write()
		case 's':
			say()
		case 'x':
			panic(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
		}
	}
}
