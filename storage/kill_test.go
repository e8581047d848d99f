package storage

import (
	"bufio"
	"fmt"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/storage/chunk"
)

// The environment of the child that TestKilledGoesOn kills.
const (
	childHome = "SHOAL_TEST_CHILD_HOME"
	childLink = "SHOAL_TEST_CHILD_LINK"
	childDest = "SHOAL_TEST_CHILD_DEST"
)

// TestChild is no test of its own: it is a peer in a process that can be killed.
func TestChild(t *testing.T) {
	home := os.Getenv(childHome)
	if home == "" {
		t.Skip("it is run by TestKilledGoesOn")
	}
	link, err := chunk.ParseLink(os.Getenv(childLink))
	must(t, err)
	_, err = startPeer(t, home, nil).Get(t.Context(), link, GetOptions{Dest: os.Getenv(childDest)}, func(p Progress) {
		fmt.Printf("done %d\n", p.Done)
	})
	t.Fatal("it was to be killed before its get ended: ", err)
}

// kill -9 in mid-get, and run again: bytes that are verified are not fetched
// again. The file is too small for a lane, which the gate would not hold.
func TestKilledGoesOn(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"file": 15 << 20, "folder": 0} {
		t.Run(name, func(t *testing.T) { testKilled(t, size) })
	}
}

func testKilled(t *testing.T, size int) {
	src := filepath.Join(t.TempDir(), "src")
	half := size / 2
	if size > 0 {
		write(t, src, randomBytes(40, size))
	} else {
		for i := range 2000 {
			write(t, filepath.Join(src, fmt.Sprintf("d%d", i%20), fmt.Sprintf("f%d", i)), randomBytes(uint64(i), 4096+i%100))
			size += 4096 + i%100
		}
		half = size / 3
	}
	g, change := gated(size * 2 / 3)
	a := startPeer(t, t.TempDir(), change)
	t.Cleanup(g.open)
	sh, err := a.Share(testContext(t), src, ShareOptions{}, nil)
	must(t, err)
	home, dest := t.TempDir(), filepath.Join(t.TempDir(), "out")
	killAt(t, home, dest, a.link(t, sh).String(), int64(half))
	g.open()

	marked := markedBytes(t, filepath.Join(home, "store"), sh.Root, a)
	if marked < int64(half)/2 || !exists(dest+partialSuffix) || exists(dest) {
		t.Fatalf("%d bytes are marked after %d were there", marked, half)
	}
	res, err := startPeer(t, home, nil).Get(testContext(t), a.link(t, sh), GetOptions{Dest: dest}, nil)
	must(t, err)
	sameTree(t, src, dest)
	if res.Fetched != int64(size)-marked || res.Reused != marked {
		t.Errorf("of %d bytes %d were here; fetched %d, reused %d", size, marked, res.Fetched, res.Reused)
	}
}

// killAt runs a get in a child and kills it once so many bytes are there.
func killAt(t *testing.T, home, dest, link string, bytes int64) {
	t.Helper()
	killChild(t, "TestChild", bytes, childHome+"="+home, childLink+"="+link, childDest+"="+dest)
}

// killChild runs a test in a child and kills it once it says that so many bytes
// are done.
func killChild(t *testing.T, test string, bytes int64, env ...string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(testContext(t), self, "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var n int64
		if _, err := fmt.Sscanf(lines.Text(), "done %d", &n); err == nil && n >= bytes {
			break
		} else if strings.Contains(lines.Text(), "FAIL") {
			t.Error(lines.Text())
		}
	}
	must(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
}

// markedBytes reads the persisted bitfield of a store nobody has open. at holds
// the root whole, and so knows the leaves' sizes.
func markedBytes(t *testing.T, store string, root chunk.CID, at *testPeer) (n int64) {
	t.Helper()
	have, err := os.ReadFile(filepath.Join(store, root.String(), "have"))
	must(t, err)
	r, ok := at.store.Root(root)
	if !ok {
		t.Fatal("not shared")
	}
	tree, err := r.Tree()
	must(t, err)
	for i, b := range have {
		for ; b != 0; b &= b - 1 {
			n += int64(tree.Leaves[8*i+bits.TrailingZeros8(b)].Size)
		}
	}
	return n
}
