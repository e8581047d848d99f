package quorum

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// childHome makes this test binary a peer of its own, which lives until it is killed.
const childHome = "SHOAL_QUORUM_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childHome); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child says where it is, and serves until its standard input ends.
func child(dir string) {
	p := &realPeer{dir: dir}
	if err := p.begin(9); err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Printf("%s/p2p/%s\n", p.host.Addrs()[0], p.host.ID())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// spawn starts a child and returns its address.
func spawn(t *testing.T, dir string) (*exec.Cmd, peer.AddrInfo) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childHome+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr, err := multiaddr.NewMultiaddr(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err, line)
	}
	info, err := peer.AddrInfoFromP2pAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, *info
}

// The process that leads is killed with -9: the kernel closes its connections, and nobody says goodbye.
func TestKilledLeaderIsReplaced(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		t.Run(fmt.Sprint("quiet=", quiet), func(t *testing.T) { killLeader(t, quiet) })
	}
}

func killLeader(t *testing.T, quiet bool) {
	dir := t.TempDir()
	cmd, info := spawn(t, dir)
	a, b := newRealPeer(t, 1), newRealPeer(t, 2)
	connect(t, a, b)
	for _, p := range []*realPeer{a, b} {
		if err := p.host.Connect(t.Context(), info); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	g, err := a.Create(ctx, GroupID{1}, "table", []peer.ID{a.host.ID(), b.host.ID(), info.ID})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Transfer(ctx, info.ID); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if r, err := g.Propose(ctx, add("n", 1)); err != nil || number(r) != i+1 {
			t.Fatal(number(r), err)
		}
	}
	if quiet {
		if err := g.until(ctx, func(st Status) bool { return st.Quiet }); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.until(ctx, func(st Status) bool { return st.Leader != "" && st.Leader != info.ID }); err != nil {
		t.Fatal(err)
	}
	elected := time.Since(start)
	if r, err := g.Propose(ctx, add("n", 1)); err != nil || number(r) != 21 {
		t.Fatal(number(r), err)
	}
	t.Logf("a new leader after %v, the next command applied after %v", elected, time.Since(start))
	if elected > 1200*time.Millisecond {
		t.Error("that is too long")
	}
	// It comes back with what its disk holds.
	_ = cmd.Wait()
	_, info = spawn(t, dir)
	for _, p := range []*realPeer{a, b} {
		if err := p.host.Connect(ctx, info); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Transfer(ctx, info.ID); err != nil {
		t.Fatal(err)
	}
	if r, err := g.Propose(ctx, add("n", 1)); err != nil || number(r) != 22 {
		t.Fatal(number(r), err)
	}
}
