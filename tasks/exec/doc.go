// Package exec owns the runners of tasks: it runs guests, WebAssembly modules and native commands, in children of the peer
// and never in the peer's own process.
//
// A child is the same binary started again with a hidden first argument (call Child first thing in main and in TestMain). It
// is kept warm, fed one task at a time over its standard input, and says what the guest writes and how it ended over its
// standard output. A guest that does not stop is stopped by a signal, which needs nobody's help. A child whose parent dies
// dies with it, whatever it runs, and an idle one is let go after a while.
//
// The time until which a task may run is kept by the child too: at that reading of the boot-time clock, which counts sleep,
// the guest stops running, even when the peer's process is stopped or has not yet noticed that the lid is open again.
//
// The package knows no jobs, leases or peers: it is given a task with the paths of its bytes, and gives back its exit. What
// it cannot enforce on this system it says in Guards.
package exec
