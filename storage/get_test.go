package storage

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

const partialSuffix = block.PartialSuffix

// mib is a file of n MiB that no other seed makes.
func mib(seed uint64, n int) []byte { return randomBytes(seed, n<<20) }

// shareFile shares data as a file of p's.
func (p *testPeer) shareFile(t testing.TB, data []byte) (Share, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shared")
	write(t, path, data)
	sh, err := p.Share(testContext(t), path, ShareOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sh, path
}

func same(t testing.TB, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != string(want) {
		t.Errorf("%s: %d bytes, want %d; %v", path, len(got), len(want), err)
	}
}

func none(t testing.TB, path string) {
	t.Helper()
	if exists(path) {
		t.Errorf("%s is there", path)
	}
}

// interrupted is a get of data at a fresh peer's that was cancelled with some of
// it here, and the provider that has all of it.
type interrupted struct {
	home   string
	dest   string
	link   chunk.Link
	data   []byte
	marked int64 // bytes that are marked as verified
	seed   *testPeer
}

// interrupt cancels a get of an 8 MiB file half-way.
func interrupt(t testing.TB) *interrupted {
	t.Helper()
	x := &interrupted{home: t.TempDir(), dest: filepath.Join(t.TempDir(), "out"), data: mib(20, 8)}
	g, change := gated(4<<20 + 1<<19)
	x.seed = startPeer(t, t.TempDir(), change)
	t.Cleanup(g.open)
	sh, _ := x.seed.shareFile(t, x.data)
	x.link = x.seed.link(t, sh)
	p := startPeer(t, x.home, nil)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	_, err := p.Get(ctx, x.link, GetOptions{Dest: x.dest}, func(pr Progress) {
		if pr.Phase == "fetching" && pr.Done >= 3<<20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("err = %v", err)
	}
	r, ok := p.store.Root(sh.Root)
	if !ok {
		t.Fatal("no record of the partial")
	}
	x.marked = int64(r.HaveCount()) << 20
	if x.marked < 3<<20 || !exists(x.dest+partialSuffix) || exists(x.dest) {
		t.Fatalf("%d bytes in the partial", x.marked)
	}
	if shares := p.Shares(); len(shares) != 1 || shares[0].State != Partly || shares[0].Have != x.marked>>20 {
		t.Errorf("listed as %+v", shares)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	g.open()
	return x
}

// restart starts the peer again.
func (x *interrupted) restart(t testing.TB) *testPeer { return startPeer(t, x.home, nil) }

func TestCancelledGoesOn(t *testing.T) {
	t.Parallel()
	x := interrupt(t)
	res, err := x.restart(t).Get(testContext(t), x.link, GetOptions{Dest: x.dest}, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, x.dest, x.data)
	none(t, x.dest+partialSuffix)
	if res.Fetched != int64(len(x.data))-x.marked || res.Reused != x.marked {
		t.Errorf("%d bytes were here: fetched %d, reused %d", x.marked, res.Fetched, res.Reused)
	}
}

func TestInterruptedThenElsewhere(t *testing.T) {
	t.Parallel()
	x := interrupt(t)
	p := x.restart(t)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	res, err := p.Get(testContext(t), x.link, GetOptions{Dest: elsewhere}, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, elsewhere, x.data)
	if res.Fetched != int64(len(x.data))-x.marked {
		t.Errorf("%d bytes were here, and %d came", x.marked, res.Fetched)
	}
	none(t, x.dest+partialSuffix) // nobody would ever finish or remove it
	// And back again: from what is here.
	if res, err = p.Get(testContext(t), x.link, GetOptions{Dest: x.dest}, nil); err != nil || res.Fetched != 0 {
		t.Fatalf("fetched %d, %v", res.Fetched, err)
	}
	same(t, x.dest, x.data)
}

func TestInterruptedThen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do     func(t *testing.T, x *interrupted)
		reuses bool
		err    error
		force  bool
	}{
		"partial removed": {func(t *testing.T, x *interrupted) { remove(t, x.dest+partialSuffix) }, false, nil, false},
		"record removed": {func(t *testing.T, x *interrupted) {
			remove(t, filepath.Join(x.home, "store"))
		}, true, nil, false},
		"tree damaged": {func(t *testing.T, x *interrupted) {
			write(t, filepath.Join(x.home, "store", x.link.Root.String(), "tree"), []byte{200, 1, 2, 3})
		}, true, nil, false},
		"record damaged": {func(t *testing.T, x *interrupted) {
			write(t, filepath.Join(x.home, "store", x.link.Root.String(), "meta.json"), []byte("{"))
		}, true, nil, false},
		"finished by hand": {func(t *testing.T, x *interrupted) {
			write(t, x.dest, x.data)
		}, true, nil, false},
		"name taken": {func(t *testing.T, x *interrupted) {
			write(t, x.dest, []byte("mine"))
		}, true, ErrExists, false},
		"name taken, by force": {func(t *testing.T, x *interrupted) {
			write(t, x.dest, []byte("mine"))
		}, true, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := interrupt(t)
			c.do(t, x)
			res, err := x.restart(t).Get(testContext(t), x.link, GetOptions{Dest: x.dest, Force: c.force}, nil)
			if c.err != nil {
				if !errors.Is(err, c.err) || res.Fetched != 0 {
					t.Fatalf("fetched %d, err = %v", res.Fetched, err)
				}
				same(t, x.dest, []byte("mine"))
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			same(t, x.dest, x.data)
			none(t, x.dest+partialSuffix)
			if most := int64(len(x.data)) - x.marked; c.reuses && res.Fetched > most {
				t.Errorf("%d bytes were here, and %d came", x.marked, res.Fetched)
			}
		})
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// Bytes of a partial that somebody changed are noticed and fetched again.
func TestPartialTamperedWith(t *testing.T) {
	t.Parallel()
	x := interrupt(t)
	f, err := os.OpenFile(x.dest+partialSuffix, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("rubbish"), 100)
	if err := errors.Join(err, f.Close(), os.Chtimes(f.Name(), time.Time{}, time.Now().Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	res, err := x.restart(t).Get(testContext(t), x.link, GetOptions{Dest: x.dest}, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, x.dest, x.data)
	if have := int64(len(x.data)) - res.Fetched; have < x.marked-1<<20 || have > x.marked {
		t.Errorf("%d bytes were here, and %d came", x.marked, res.Fetched)
	}
}

// What stands at the destination goes only by force, and only for something whole.
func TestForce(t *testing.T) {
	t.Parallel()
	a, b := newPeer(t), newPeer(t)
	file, folder := filepath.Join(t.TempDir(), "f"), filepath.Join(t.TempDir(), "d")
	write(t, file, mib(21, 2))
	write(t, filepath.Join(folder, "x"), []byte("x"))
	write(t, filepath.Join(folder, "sub", "y"), mib(22, 1))
	stands := map[string]func(t *testing.T, p string){
		"file":        func(t *testing.T, p string) { write(t, p, []byte("mine")) },
		"folder":      func(t *testing.T, p string) { write(t, filepath.Join(p, "mine"), []byte("mine")) },
		"like folder": func(t *testing.T, p string) { write(t, filepath.Join(p, "x"), []byte("X")) },
		"symlink":     func(t *testing.T, p string) { must(t, os.Symlink(folder, p)) },
	}
	for what, src := range map[string]string{"file": file, "folder": folder} {
		sh, err := a.Share(testContext(t), src, ShareOptions{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, stand := range stands {
			t.Run(what+" over "+name, func(t *testing.T) {
				parent := t.TempDir()
				out := filepath.Join(parent, "out")
				stand(t, out)
				before := listing(t, parent)
				if _, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil); !errors.Is(err, ErrExists) {
					t.Fatalf("without force: %v", err)
				}
				if after := listing(t, parent); fmt.Sprint(after) != fmt.Sprint(before) {
					t.Fatalf("refused, and changed: %v", after)
				}
				if _, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out, Force: true}, nil); err != nil {
					t.Fatal(err)
				}
				if what == "file" {
					same(t, out, mib(21, 2))
				} else {
					sameTree(t, src, out)
				}
				if names, _ := os.ReadDir(parent); len(names) != 1 {
					t.Errorf("left over: %v", names)
				}
				must(t, b.Unshare(sh.Root))
			})
		}
	}
	sameTree(t, folder, folder)
	same(t, filepath.Join(folder, "x"), []byte("x")) // behind the symbolic link
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A destination that holds the content is success, and is seeded from there.
func TestIdenticalIsThere(t *testing.T) {
	t.Parallel()
	a, b, c := newPeer(t), newPeer(t), newPeer(t)
	src := mixedFolder(t)
	sh, err := a.Share(testContext(t), src, ShareOptions{}, nil)
	must(t, err)
	out := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(out, os.DirFS(src)))
	res, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil)
	if err != nil || res.Fetched != 0 {
		t.Fatalf("fetched %d, %v", res.Fetched, err)
	}
	third := filepath.Join(t.TempDir(), "third")
	if _, err := c.Get(testContext(t), b.link(t, sh), GetOptions{Dest: third}, nil); err != nil {
		t.Fatal(err)
	}
	sameTree(t, src, third)
}

func TestParentMissing(t *testing.T) {
	t.Parallel()
	a, b := newPeer(t), newPeer(t)
	sh, _ := a.shareFile(t, mib(23, 1))
	out := filepath.Join(t.TempDir(), "not", "there", "yet", "out")
	if _, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil); err != nil {
		t.Fatal(err)
	}
	same(t, out, mib(23, 1))
}

func TestParentIsAFile(t *testing.T) {
	t.Parallel()
	a, b := newPeer(t), newPeer(t)
	sh, _ := a.shareFile(t, []byte("x"))
	parent := filepath.Join(t.TempDir(), "file")
	write(t, parent, nil)
	if _, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: filepath.Join(parent, "out")}, nil); err == nil {
		t.Fatal("made something below a file")
	}
}

// A root that this peer holds is copied, not fetched, as long as it is whole.
func TestGetOfOwnShare(t *testing.T) {
	t.Parallel()
	a, b := newPeer(t), newPeer(t)
	data := mib(24, 4)
	sh, path := b.shareFile(t, data)
	out := filepath.Join(t.TempDir(), "copy")
	res, err := b.Get(testContext(t), chunk.Link{Root: sh.Root}, GetOptions{Dest: out}, nil)
	if err != nil || res.Fetched != 0 {
		t.Fatalf("fetched %d, %v", res.Fetched, err)
	}
	same(t, out, data)
	if shares := b.Shares(); len(shares) != 1 || shares[0].Path != path || shares[0].State != Seeding {
		t.Errorf("shares: %+v", shares)
	}

	// One chunk of the shared file goes bad; another provider has it.
	other, _ := a.shareFile(t, data)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("rubbish"), 2<<20)
	must(t, errors.Join(err, f.Close()))
	again := filepath.Join(t.TempDir(), "again")
	if _, err := b.Get(testContext(t), a.link(t, other), GetOptions{Dest: again}, nil); err != nil {
		t.Fatal(err)
	}
	same(t, again, data)
}

// A finished download whose files are gone or changed is fetched again.
func TestGetAgainAfterLoss(t *testing.T) {
	t.Parallel()
	a, b := newPeer(t), newPeer(t)
	data := mib(25, 3)
	sh, _ := a.shareFile(t, data)
	out := filepath.Join(t.TempDir(), "out")
	get := func(force bool) (GetResult, error) {
		return b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out, Force: force}, nil)
	}
	if _, err := get(false); err != nil {
		t.Fatal(err)
	}
	remove(t, out)
	if shares := b.Shares(); shares[0].State != Missing {
		t.Errorf("listed as %+v", shares[0])
	}
	if res, err := get(false); err != nil || res.Fetched != int64(len(data)) {
		t.Fatalf("fetched %d, %v", res.Fetched, err)
	}
	same(t, out, data)
	write(t, out, []byte("changed"))
	if shares := b.Shares(); shares[0].State != Changed {
		t.Errorf("listed as %+v", shares[0])
	}
	if _, err := get(false); !errors.Is(err, ErrExists) {
		t.Fatalf("over a changed file: %v", err)
	}
	same(t, out, []byte("changed"))
	if _, err := get(true); err != nil {
		t.Fatal(err)
	}
	same(t, out, data)
}

func TestTwoGetsAtOnce(t *testing.T) {
	t.Parallel()
	g, change := gated(1 << 20)
	a, b := startPeer(t, t.TempDir(), change), newPeer(t)
	defer g.open()
	data := mib(26, 4)
	sh, _ := a.shareFile(t, data)
	out := filepath.Join(t.TempDir(), "out")
	done := make(chan error)
	go func() {
		_, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil)
		done <- err
	}()
	<-g.full
	for _, dest := range []string{out, out + "2"} {
		if _, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: dest}, nil); !errors.Is(err, exchange.ErrBusy) {
			t.Errorf("a second get: %v", err)
		}
	}
	g.open()
	must(t, <-done)
	same(t, out, data)
	if _, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out + "2"}, nil); err != nil {
		t.Fatal(err)
	}
	same(t, out+"2", data)
}

// Sharing what is being fetched, and withdrawing it, leave the download whole.
func TestShareAndUnshareDuringGet(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"share", "unshare"} {
		t.Run(how, func(t *testing.T) {
			g, change := gated(1<<20 + 1<<19)
			a, b := startPeer(t, t.TempDir(), change), newPeer(t)
			defer g.open()
			data := mib(27, 4)
			sh, _ := a.shareFile(t, data)
			out := filepath.Join(t.TempDir(), "out")
			done := make(chan error)
			go func() {
				_, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil)
				done <- err
			}()
			<-g.full
			if how == "share" {
				b.shareFile(t, data)
			} else if err := b.Unshare(sh.Root); err != nil && !errors.Is(err, ErrNotShared) {
				t.Fatal(err)
			}
			g.open()
			must(t, <-done)
			same(t, out, data)
			for _, x := range b.Shares() {
				if x.State != Seeding {
					t.Errorf("listed as %+v", x)
				}
			}
		})
	}
}

// A file that changes while it is shared: what was read before goes out, then
// the change is noticed, said, and others take over.
func TestFileChangesWhileShared(t *testing.T) {
	t.Parallel()
	g, change := gated(3 << 20)
	a := startPeer(t, t.TempDir(), change)
	defer g.open()
	data := mib(28, 14) // less than what is sent on a lane, which the gate does not hold
	sh, path := a.shareFile(t, data)
	other := newPeer(t)
	other.shareFile(t, data)
	find := newFinder()
	b := startPeer(t, t.TempDir(), func(c *Config) { c.Finder = find })
	out := filepath.Join(t.TempDir(), "out")
	type outcome struct {
		res GetResult
		err error
	}
	done := make(chan outcome)
	go func() {
		res, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil)
		done <- outcome{res, err}
	}()
	<-g.full
	write(t, path, mib(29, 14))
	g.open()
	find.tell(other)
	x := <-done
	must(t, x.err)
	same(t, out, data)
	if len(x.res.Sources) != 2 || len(x.res.Banned) != 0 {
		t.Errorf("sources %v, banned %v", x.res.Sources, x.res.Banned)
	}
	if shares := a.Shares(); shares[0].State != Changed || !strings.Contains(shares[0].Problem, "changed") {
		t.Errorf("listed as %+v", shares[0])
	}

	// From that one provider alone there is no more to be had, and the error says why.
	_, err := newPeer(t).Get(testContext(t), a.link(t, sh), GetOptions{Dest: out + "2", Timeout: time.Second}, nil)
	var none *exchange.NoProviderError
	if !errors.As(err, &none) || !strings.Contains(err.Error(), "changed") {
		t.Errorf("err = %v", err)
	}
}

func TestProviderLater(t *testing.T) {
	t.Parallel()
	a, find := newPeer(t), newFinder()
	b := startPeer(t, t.TempDir(), func(c *Config) { c.Finder = find })
	data := mib(30, 2)
	sh, _ := a.shareFile(t, data)
	out := filepath.Join(t.TempDir(), "out")
	searching := make(chan struct{}, 1)
	done := make(chan error)
	go func() {
		_, err := b.Get(testContext(t), chunk.Link{Root: sh.Root}, GetOptions{Dest: out}, func(p Progress) {
			if p.Phase == "finding" && p.Peers == 0 {
				select {
				case searching <- struct{}{}:
				default:
				}
			}
		})
		done <- err
	}()
	<-searching
	find.tell(a)
	must(t, <-done)
	same(t, out, data)
}

// A provider goes away in mid-transfer and another continues.
func TestProviderGoes(t *testing.T) {
	t.Parallel()
	g, change := gated(3<<20 + 1000)
	a, find := startPeer(t, t.TempDir(), change), newFinder()
	defer g.open()
	data := mib(31, 8)
	sh, _ := a.shareFile(t, data)
	other := newPeer(t)
	other.shareFile(t, data)
	b := startPeer(t, t.TempDir(), func(c *Config) { c.Finder = find })
	out := filepath.Join(t.TempDir(), "out")
	done := make(chan error)
	var res GetResult
	go func() {
		var err error
		res, err = b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil)
		done <- err
	}()
	<-g.full
	must(t, a.host.Network().Close())
	g.open()
	find.tell(other)
	must(t, <-done)
	same(t, out, data)
	if res.Fetched != int64(len(data)) {
		t.Errorf("%d of %d bytes, %d in vain", res.Fetched, len(data), res.Wasted)
	}
}

// Three peers in a row, each of which knows only the one before, fetch at the
// same time: each passes on what it has got so far.
func TestChainSeedsWhileFetching(t *testing.T) {
	t.Parallel()
	g, change := gated(4 << 20)
	a := startPeer(t, t.TempDir(), change)
	defer g.open()
	data := mib(32, 12)
	sh, _ := a.shareFile(t, data)
	peers := []*testPeer{a, newPeer(t), newPeer(t), newPeer(t)}
	done := make(chan error)
	passed := make(chan struct{})
	outs := make([]string, len(peers))
	for i := 1; i < len(peers); i++ {
		outs[i] = filepath.Join(t.TempDir(), "out")
		began := make(chan struct{})
		go func() {
			begun, last := false, false
			_, err := peers[i].Get(testContext(t), peers[i-1].link(t, sh), GetOptions{Dest: outs[i]}, func(p Progress) {
				if p.Phase == "fetching" && p.Done > 0 && !begun {
					begun = true
					close(began)
				}
				if i == len(peers)-1 && p.Done >= 1<<20 && !last {
					last = true
					close(passed)
				}
			})
			done <- err
		}()
		<-began // the next needs somebody to ask
	}
	<-passed // the last has leaves, and the first has not given all: they came through partials
	g.open()
	for range peers[1:] {
		must(t, <-done)
	}
	for _, out := range outs[1:] {
		same(t, out, data)
	}
}

// After a power cut, a finished download is read again before it is served, and
// damage is said.
func TestAfterPowerCut(t *testing.T) {
	t.Parallel()
	for _, damaged := range []bool{false, true} {
		t.Run(fmt.Sprint("damaged ", damaged), func(t *testing.T) {
			a, home := newPeer(t), t.TempDir()
			data := mib(33, 2)
			sh, _ := a.shareFile(t, data)
			out := filepath.Join(t.TempDir(), "out")
			b := startPeer(t, home, func(c *Config) {})
			if _, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil); err != nil {
				t.Fatal(err)
			}
			must(t, b.Close())
			rebooted(t, filepath.Join(home, "store"), sh.Root)
			if damaged { // same length, same time
				fi, err := os.Stat(out)
				must(t, err)
				write(t, out, append(make([]byte, 1<<20), data[1<<20:]...))
				must(t, os.Chtimes(out, time.Time{}, fi.ModTime()))
			}
			b = startPeer(t, home, nil)
			b.tasks.Wait() // for the check
			state := b.Shares()[0].State
			if damaged != (state == Changed) {
				t.Errorf("listed as %+v", b.Shares()[0])
			}
			_, err := newPeer(t).Get(testContext(t), b.link(t, sh), GetOptions{Dest: out + "2", Timeout: time.Second}, nil)
			if (err == nil) == damaged {
				t.Errorf("get from it: %v", err)
			}
			if !damaged {
				return
			}
			if _, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out, Force: true}, nil); err != nil {
				t.Fatal(err)
			}
			same(t, out, data)
		})
	}
}

// rebooted makes a record look as if it had been written under an earlier boot
// and never synced.
func rebooted(t testing.TB, store string, root chunk.CID) {
	t.Helper()
	path := filepath.Join(store, root.String(), "meta.json")
	data, err := os.ReadFile(path)
	must(t, err)
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(string(data)), "\n") {
		if strings.Contains(line, `"boot":`) {
			continue
		}
		if strings.Contains(line, `"check":`) {
			lines = append(lines, ` "boot": "earlier",`)
			line = ` "check": ""`
		}
		lines = append(lines, line)
	}
	text := strings.Join(lines, "\n")
	sum := crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli))
	write(t, path, []byte(strings.Replace(text, `"check": ""`, fmt.Sprintf(`"check": "%08x"`, sum), 1)))
}
