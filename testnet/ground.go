package testnet

import (
	"fmt"
	"os/exec"

	"github.com/shoal-os/shoal/testnet/script"
)

// ground is where peers stand and what lies between them.
type ground interface {
	mode() Ground
	// addr is the address that a peer listens on; with fixed ports, or with any.
	addr(peer int) (ip string, fixed bool)
	// start starts a process where a peer stands. It is killed when this program ends.
	start(peer int, cmd *exec.Cmd) error
	// The faults of the network. A fault that cannot be had here is a skipped error.
	partition(groups [][]int) error
	heal() error
	link(a, b []int, l script.Link) error
	// sent is the number of bytes that a peer has sent; ok is false where nobody counts.
	sent(peer int) (n int64, ok bool)
	close() error
}

// skipped is the error of a step that cannot be done here.
type skipped struct{ why string }

func (s skipped) Error() string { return "skipped: " + s.why }

// newGround makes the ground that was asked for. why says what kept it from being namespaces.
func newGround(kind Ground, plan script.Plan) (g ground, why string, err error) {
	if kind == GroundProcesses {
		return newLoopback(plan), "processes were asked for", nil
	}
	spaces, err := newNamespaces(plan)
	switch {
	case err == nil:
		return spaces, "", nil
	case kind == GroundNamespaces:
		return nil, "", fmt.Errorf("testnet: %w", err)
	}
	return newLoopback(plan), err.Error(), nil
}

// loopback is all peers on the machine's loopback address: they are real, the network between them is perfect.
type loopback struct{ starter starter }

func newLoopback(script.Plan) *loopback { return &loopback{newStarter()} }

func (*loopback) mode() Ground                       { return GroundProcesses }
func (*loopback) addr(int) (string, bool)            { return "127.0.0.1", false }
func (l *loopback) start(_ int, cmd *exec.Cmd) error { return l.starter.start(cmd) }
func (*loopback) sent(int) (int64, bool)             { return 0, false }
func (l *loopback) close() error                     { l.starter.close(); return nil }

const noNetwork = "peers share this machine's loopback, whose network is not ours to disturb; root on Linux gives each its own"

func (*loopback) partition([][]int) error              { return skipped{noNetwork} }
func (*loopback) heal() error                          { return nil }
func (*loopback) link([]int, []int, script.Link) error { return skipped{noNetwork} }
