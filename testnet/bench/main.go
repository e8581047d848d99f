// Bench measures shoal against the limits of the machine it runs on, and prints a table or JSON.
//
//	go run ./testnet/bench share [--size 1GiB] [--files 10000] [--runs 3] [--json]
//	go run ./testnet/bench swarm [--json]
//	go run ./testnet/bench memory [--size 10GiB]
//	go run ./testnet/bench pool [--peers 50] [--records 10000] [--json]
//	go run ./testnet/bench tasks [--wasm 20000] [--split 4GiB] [--json]
//	go run ./testnet/bench year [--seeds 1000] [--json]
//	go run ./testnet/bench scale [--measure 10,30,100] [--quick]
//	go run ./testnet/bench files [--size 256MiB] [--files 5000] [--mixed 1GiB] [--json]
//
// A figure from one machine says nothing on another, and little on a busy one. So every bench measures its floors
// (what a skilled programmer would get from the same machine without shoal's duties) in the same run, turn by turn
// with its subject, each side in a process of its own, and what counts is the ratio. Data is pseudo-random, lives in
// one temporary folder (TMPDIR is honoured), and is removed at the end and on ctrl-C.
//
// The package decides nothing and keeps no history; it never listens on or dials anything but loopback and the
// emulated network that it makes itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/shoal-os/shoal/tasks/exec"
)

// bench is one subcommand: it lives in a file of its own, which registers nothing; add it to benches.
type bench struct {
	name string
	does string
	run  func(ctx context.Context, args []string) error
}

var benches = []bench{
	{"share", "import and one-to-one get of one large file and of many small ones", runShare},
	{"swarm", "one to many, many to one, and across an emulated wide-area link", runSwarm},
	{"memory", "the peaks of memory of both sides for one very large file", runMemory},
	{"pool", "convergence, catching up and the idle cost of a pool of many members", runPool},
	{"files", "the pool's files: put, read, list, and the loss of two peers of five", runFiles},
	{"tasks", "work: latency, small tasks a second, what each loss costs, split work, a storm of kills", runTasks},
	{"scale", "what each peer costs as the pool grows to 100,000; writes testnet/SCALE.md", runScale}, {"year", "simulated years of twenty laptops that sleep, travel and die: what is lost, what is moved", runYear},
}

// roleCommand is the hidden subcommand under which this program starts itself again as one side of a floor.
const roleCommand = "role"

func main() {
	exec.Child() // the benches' own peers start this program again to run guests
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case interrupted:
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == roleCommand {
		return runRole(args[1:])
	}
	if len(args) > 0 {
		for _, b := range benches {
			if b.name == args[0] {
				return b.run(ctx, args[1:])
			}
		}
	}
	usage(os.Stderr)
	if len(args) > 0 && args[0] != "help" && args[0] != "-h" && args[0] != "--help" {
		return fmt.Errorf("no bench is called %q", args[0])
	}
	return flag.ErrHelp
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: bench NAME [flags]    (NAME --help lists the flags)")
	for _, b := range benches {
		fmt.Fprintf(w, "  %-8s %s\n", b.name, b.does)
	}
}
