package node

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

const copiesWithin = 20 * time.Second

// keepers starts a pool of peers that keep files and have so much patience with each other.
func keepers(t *testing.T, count int, patience time.Duration) []*Node {
	t.Helper()
	var nodes []*Node
	for i := range count {
		n := startNamed(t, string(rune('a'+i)), Config{Lend: Lend{Space: 200 << 20}, Patience: patience})
		if nodes = append(nodes, n); i > 0 {
			mustJoin(t, n, invite(t, nodes[0], client.InviteRequest{}))
		}
	}
	within(t, listedWithin, "all know what all lend", func() bool {
		for _, n := range nodes {
			s, err := n.FileSpace(t.Context())
			offers := 0
			for _, m := range s.Members {
				if m.Space > 0 {
					offers++
				}
			}
			if err != nil || offers < count {
				return false
			}
		}
		return true
	})
	return nodes
}

// store makes a pool file of random bytes.
func store(t *testing.T, n *Node, path string, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte([]byte((path + strings.Repeat(" ", 32))[:32]))).Read(data)
	if _, err := n.FileWrite(t.Context(), path, 0, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return data
}

func read(n *Node, path string) ([]byte, error) {
	var out bytes.Buffer
	err := n.Cat(context.Background(), client.CatRequest{Link: path}, func(int64) io.Writer { return &out })
	return out.Bytes(), err
}

// allSafe waits until every member knows everything to have its copies.
func allSafe(t *testing.T, nodes []*Node, files int) {
	t.Helper()
	within(t, copiesWithin, "everything has its copies", func() bool {
		for _, n := range nodes {
			s, err := n.FileSpace(t.Context())
			if err != nil || s.Files != files {
				return false
			}
			for _, c := range s.Classes {
				if c.State != "safe" && c.Pieces > 0 {
					return false
				}
			}
		}
		return true
	})
}

// flip changes one bit in the middle of every file below a folder that is large enough to hold a piece.
func flip(t *testing.T, dir string, least int64) (flipped int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() < least {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data[len(data)/2] ^= 1
		flipped++
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
		return os.Chtimes(path, info.ModTime(), info.ModTime()) // a disk that rots does not tell
	})
	if err != nil {
		t.Fatal(err)
	}
	return flipped
}

// TestAFlippedBitIsFoundAndMended flips a bit in a large and a small piece of one peer: it serves neither, reads both
// from others, and has them whole again.
func TestAFlippedBitIsFoundAndMended(t *testing.T) {
	nodes := keepers(t, 3, 2*time.Second)
	large, small := store(t, nodes[0], "/large", 3<<20), store(t, nodes[0], "/small", 100<<10)
	allSafe(t, nodes, 2)
	sick := nodes[1]
	if n := flip(t, filepath.Join(sick.cfg.Home, piecesDir), 64<<10); n < 2 {
		t.Fatalf("only %d files were there to damage", n)
	}
	for path, want := range map[string][]byte{"/large": large, "/small": small} {
		if got, err := read(sick, path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is read with %d bytes, %v", path, len(got), err)
		}
	}
	r, err := sick.FileScrub(t.Context(), nil)
	if err != nil || r.Missing > 0 || r.Damaged > r.Repaired {
		t.Fatalf("%+v %v", r, err)
	}
	allSafe(t, nodes, 2)
	within(t, copiesWithin, "the sick peer holds both again", func() bool {
		held := 0
		for range sick.pieces.All() {
			held++
		}
		return held == 2
	})
	if r, err = sick.FileScrub(t.Context(), nil); err != nil || r.Damaged > 0 || r.Pieces != 2 {
		t.Errorf("the second scrub: %+v %v", r, err)
	}
}

// TestASleeperReturnsQuietly has a peer miss a while in which nothing changes: nothing is fetched for it.
func TestASleeperReturnsQuietly(t *testing.T) {
	nodes := keepers(t, 4, time.Hour)
	for _, path := range []string{"/one", "/two", "/three"} {
		store(t, nodes[0], path, 2<<20)
	}
	allSafe(t, nodes, 3)
	sleeper := nodes[3]
	// A put is acknowledged at two copies and safe at three, while those that placement chose may still be fetching theirs.
	last, since := int64(-1), time.Now()
	within(t, copiesWithin, "nothing has moved for two seconds", func() bool {
		if sum := fetched(t, nodes); sum != last {
			last, since = sum, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	home := sleeper.cfg.Home
	if err := sleeper.Close(); err != nil {
		t.Fatal(err)
	}
	before := fetched(t, nodes[:3])
	again, err := Start(t.Context(), Config{
		Home: home, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Lend: Lend{Space: 200 << 20}, Patience: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	nodes[3] = again
	within(t, healedWithin, "it is back", func() bool { return len(online(again)) == 4 })
	allSafe(t, nodes, 3)
	if after := fetched(t, nodes); after != before {
		t.Errorf("%d bytes were fetched", after-before)
	}
}

// fetched is what peers have fetched to mend copies since they started.
func fetched(t *testing.T, nodes []*Node) (sum int64) {
	t.Helper()
	for _, n := range nodes {
		s, err := n.FileSpace(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sum += s.Repair.Bytes
	}
	return sum
}

// TestLeavingHandsOver has the one peer with a copy leave: another has it first.
func TestLeavingHandsOver(t *testing.T) {
	nodes := keepers(t, 1, time.Hour)
	data := store(t, nodes[0], "/only", 2<<20)
	heir := startNamed(t, "heir", Config{Lend: Lend{Space: 200 << 20}, Patience: time.Hour})
	mustJoin(t, heir, invite(t, nodes[0], client.InviteRequest{Role: "admin"}))
	within(t, listedWithin, "both are known to lend", func() bool {
		s, err := nodes[0].FileSpace(t.Context())
		return err == nil && len(s.Members) == 2 && s.Members[0].Space > 0 && s.Members[1].Space > 0
	})
	if _, err := nodes[0].Leave(t.Context(), client.LeaveRequest{}); err != nil {
		t.Fatal(err)
	}
	if got, err := read(heir, "/only"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if list := nodes[0].pieces.Usage(); list.Pieces != 0 {
		t.Errorf("who left still shows %d pieces", list.Pieces)
	}
}
