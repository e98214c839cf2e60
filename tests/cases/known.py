"""The cases."""

from __future__ import annotations

from typing import Final

from tests.cases.case import Case

MIB: Final = 1 << 20
# By VmRSS: Go 1.19 returns such memory within two seconds, which is no case then; Go 1.23 and 1.27 keep it.
KEEPS_DENSE_CHUNKS: Final = "1.23.9"
SPANS_KEEP_TYPES: Final = "1.22.10"  # the first at hand whose spans of one object keep its type (mspan.largeType)
GROWS: Final = 6.0  # seconds that it takes to see growth

CASES: Final = (
    # Free memory, and what becomes of it
    Case("golang/go#37585", "A 300 MB slice was dropped, and the RAM stays.", "freed", ("retained-idle-heap",),
         since=KEEPS_DENSE_CHUNKS),
    Case("golang/go#39779", "Released by MADV_FREE: RSS does not fall though HeapReleased is large.", "given-back",
         ("lazily-freed",), env={"GODEBUG": "madvdontneed=0"}, harmless=True),
    Case("golang/go#45000", "After FreeOSMemory, VmSize is as large as before.", "given-back",
         ("reserved-address-space",), harmless=True),
    Case("golang/go#42805", "A spike of garbage has long passed, and its memory is still there.", "spike",
         ("retained-idle-heap",), since=KEEPS_DENSE_CHUNKS),
    Case("golang/go#18896", "HeapInuse is many times HeapAlloc.", "holes", ("fragmentation",),
         also=("retained-idle-heap",)),
    Case("golang/go#35890", "HeapSys grows although HeapIdle is large.", "free-runs",
         ("fragmented-free-heap",), also=("retained-idle-heap", "large-objects")),
    Case("golang/go#28081", "With mlockall, released memory stays in RAM.", "locked", ("scavenged-but-resident",),
         words="locked"),
    Case("golang/go#64332", "Huge pages hold far more RAM than the program uses.", "huge-page",
         ("barely-used-huge-pages",), also=("large-objects",)),
    # What is alive
    Case("golang/go#42805", "Which objects are the heap: two of them, one of bytes, one of structs.", "large",
         ("large-objects",), words="main.row", since=SPANS_KEEP_TYPES),
    Case("golang/go#42805", "Who made the objects that are the heap, where the runtime keeps no types.", "large",
         ("large-objects",), words="main.large", until="1.21.13"),
    Case("golang/go#20135", "A map of which all keys were deleted is as large as before.", "map-of-deleted",
         ("large-objects", "barely-used-huge-pages"), also=("barely-used-huge-pages",), until="1.23.9"),
    Case("golang/go#23199", "A sync.Pool of buffers keeps those that were large once.", "pool", ("large-objects",)),
    Case("golang/go#73674", "Objects that refer to each other and have finalizers are never freed.", "cycles",
         ("live-heap-grows",), watch=GROWS),
    Case("cilium/tetragon#4255", "A cache without a bound.", "unbounded", ("live-heap-grows",), watch=GROWS),
    Case("golang/go#32110", "Deferred in a loop that does not end.", "defers", ("live-heap-grows",), watch=GROWS),
    Case("googleapis/google-api-go-client#1761", "Timers of an hour, that nobody waits for any more.", "timers",
         ("many-timers",)),
    Case("golang/go#1671", "Finalizers come faster than they are run.", "stuck-cleanup", ("waiting-finalizers",)),
    # Goroutines
    Case("golang/go#16953", "readLoop and writeLoop of connections whose bodies are not closed.", "bodies",
         ("goroutines-grow",), watch=GROWS, also=("live-heap-grows", "goroutine-stacks")),
    Case("golang/go#15781", "Goroutines that wait for a send, and for time.After.", "blocked", ("goroutines-grow",),
         watch=GROWS, also=("live-heap-grows",)),
    Case("golang/go#20010", "Which goroutines have deep stacks.", "deep", ("goroutine-stacks",)),
    Case("golang/go#9869", "runtime.malg: g structs of goroutines that have ended long ago.", "ended",
         ("ended-goroutines",)),
    Case("golang/go#65864", "Memory of finished goroutines is not given back.", "ended-stacks",
         ("retained-idle-heap", "ended-goroutines"), also=("ended-goroutines", "retained-idle-heap")),
    # GOMEMLIMIT, GOGC
    Case("golang/go#58106", "The heap has outgrown GOMEMLIMIT: the collector takes the CPU.", "live-at-limit",
         ("near-gomemlimit",), words="live heap", env={"GOMEMLIMIT": "60MiB"}),
    Case("golang/go#59324", "Stacks alone are above GOMEMLIMIT.", "stacks-at-limit", ("near-gomemlimit",),
         also=("goroutine-stacks",), words="goroutine stacks", env={"GOMEMLIMIT": "90MiB"}),
    Case("golang/go#69590", "Buckets of the heap profile eat GOMEMLIMIT.", "buckets-at-limit", ("near-gomemlimit",),
         also=("runtime-metadata",), words="records of the memory profile", env={"GOMEMLIMIT": "40MiB"}),
    Case("orbstack/orbstack#2633", "Is it the heap that grows, and how long until GOMEMLIMIT?", "limit-ahead",
         ("gomemlimit-ahead", "live-heap-grows"), also=("live-heap-grows", "gomemlimit-ahead"),
         env={"GOMEMLIMIT": "600MiB"}, watch=GROWS),
    Case("golang/go#66569", "All of GOMEMLIMIT is used: does the collector suffer from it? No.", "garbage-at-limit",
         ("near-gomemlimit",), env={"GOMEMLIMIT": "64MiB", "GOGC": "off"}, harmless=True, watch=3.0),
    Case("golang/go#42347", "MemProfileRate is on: BuckHashSys.", "buckets", ("profile-buckets", "runtime-metadata"),
         also=("goal-far-above-live",)),
    Case("lf-edge/eve#4273", "The heap may grow to many times what is alive.", "wide-goal", ("goal-far-above-live",),
         env={"GOGC": "800"}),
    Case("golang/go#21574", "Without a collector.", "small", ("collector-off",), env={"GOGC": "off"}),
    # Limits of the cgroup
    Case("RA341/dockman#212", "A limit of the container that Go does not know of.", "small", ("gomemlimit-unset",),
         cgroup=200 * MIB),
    Case("PDOK/gokoala#242", "GOMEMLIMIT leaves no room for what is not Go's.", "small",
         ("gomemlimit-without-headroom",),
         cgroup=200 * MIB, env={"GOMEMLIMIT": "195MiB"}),
    Case("DataDog/datadog-agent#52112", "GOMEMLIMIT is above the container's limit.", "small",
         ("gomemlimit-above-cgroup",), cgroup=200 * MIB, env={"GOMEMLIMIT": "400MiB"}),
    Case("antimetal/system-agent#231", "Close to the limit, and of what.", "anonymous", ("near-cgroup-limit",),
         also=("gomemlimit-unset",), cgroup=150 * MIB),
    Case("kubernetes/kubernetes#43916", "The working set counts page cache.", "cache", ("working-set-page-cache",),
         also=("near-cgroup-limit",), cgroup=400 * MIB, env={"GOMEMLIMIT": "300MiB"}),
    # Address space
    Case("golang/go#66796", "VSZ is above a gigabyte.", "idle", ("reserved-address-space",), harmless=True),
    Case("bytecodealliance/wasmtime-go#84", "64 GB of address space, by instances of WebAssembly.", "reserve",
         ("reserved-address-space",), harmless=True),
    Case("google/starlark-go#382", "ulimit -v: which limit, and how far is it.", "small", ("near-address-space-limit",),
         also=("reserved-address-space",), room=30 * MIB),
    Case("influxdata/influxdb#4548", "Cannot allocate memory: vm.max_map_count.", "fragments", ("near-mapping-limit",)),
    Case("prometheus/prometheus#7781", "Out of memory, and a terabyte is free.", "refused", ("memory-calls-failed",),
         also=("near-address-space-limit",), watch=3.0),
    # Outside of Go
    Case("iden3/go-rapidsnark#28", "RSS of C that is free, and kept in glibc's arenas.", "arenas", ("c-heap-free",),
         cgo=True, also=("outside-the-go-heap",)),
    Case("golang/go#43160", "C memory grows, the Go heap does not.", "c-leak", ("outside-grows",), cgo=True,
         watch=GROWS, also=("outside-the-go-heap",)),
    Case("smacker/go-tree-sitter#181", "Finalizers free C memory, and no collection runs.", "finalized",
         ("finalizers-wait-for-gc",), cgo=True, watch=GROWS, also=("outside-the-go-heap",)),
    Case("kenn-io/agentsview#1587", "What C has in use, where the Go heap is small.", "c-held",
         ("outside-the-go-heap",), cgo=True),
    Case("golang/go#71150", "Stacks of threads stay in RAM.", "c-threads", ("thread-stacks",), cgo=True),
    Case("etcd-io/bbolt#541", "A mapped database is most of RSS.", "read-file", ("file-pages",), harmless=True),
    Case("kubernetes/kubernetes#116895", "Mapped and written pages of a file.", "written-file", ("dirty-file-pages",)),
    Case("dgraph-io/badger#1304", "Private copies of a mapped file.", "copied-file", ("copied-file-pages",)),
    Case("google/gvisor#13714", "Memory of a memfd is shmem, and nobody's anonymous memory.", "memfd",
         ("shared-memory",)),
)  # fmt: skip

# Programs of Debian that are well: no finding may warn.
HEALTHY: Final = ("prometheus", "etcd", "prometheus-node-exporter")
