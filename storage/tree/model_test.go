package tree

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/shoal-os/shoal/storage/tree/paths"
)

// model is what a name space is meant to be, as simple as can be: files with a text, folders with a slash behind.
type model map[string]string

func (m model) kind(path string) Kind {
	if _, ok := m[path+"/"]; ok || path == "/" {
		return Folder
	}
	if _, ok := m[path]; ok {
		return File
	}
	return 0
}

// below lists what is at and under a path.
func (m model) below(path string) (out []string) {
	for p := range m {
		if paths.Inside(strings.TrimSuffix(p, "/"), path) {
			out = append(out, p)
		}
	}
	return out
}

func (m model) drop(path string) {
	for _, p := range m.below(path) {
		delete(m, p)
	}
}

// parents makes the folders above a path, or tells what is in the way.
func (m model) parents(path string, make bool) error {
	dir, _ := paths.Split(path)
	if dir == "/" {
		return nil
	}
	if err := m.parents(dir, make); err != nil {
		return err
	}
	switch m.kind(dir) {
	case File:
		return ErrNotFolder
	case 0:
		if !make {
			return ErrNotExist
		}
		m[dir+"/"] = ""
	}
	return nil
}

func (m model) put(path, text string) error {
	if m.kind(path) == Folder {
		return ErrIsFolder
	}
	try := maps.Clone(m)
	if err := try.parents(path, true); err != nil {
		return err
	}
	maps.Copy(m, try)
	m[path] = text
	return nil
}

func (m model) mkdir(path string) error {
	if m.kind(path) != 0 {
		return ErrExist
	}
	if err := m.parents(path, false); err != nil {
		return err
	}
	m[path+"/"] = ""
	return nil
}

func (m model) remove(path string, recursive bool) error {
	switch {
	case m.kind(path) == 0:
		return ErrNotExist
	case !recursive && m.kind(path) == Folder && len(m.below(path)) > 1:
		return ErrNotEmpty
	}
	m.drop(path)
	return nil
}

func (m model) transfer(from, to string, overwrite, move bool) error {
	switch {
	case m.kind(from) == 0:
		return ErrNotExist
	case from == to:
		return nil
	case paths.Inside(to, from) || paths.Inside(from, to):
		return ErrInside
	}
	if m.kind(to) == 0 {
		if err := m.parents(to, false); err != nil {
			return err
		}
	} else if !overwrite {
		return ErrExist
	}
	m.drop(to)
	for _, p := range m.below(from) {
		m[to+p[len(from):]] = m[p]
		if move {
			delete(m, p)
		}
	}
	return nil
}

// drawPath gives one of few paths, none of which clash in case.
func drawPath(t *rapid.T, label string) string {
	return rapid.SampledFrom([]string{"/a", "/a/b", "/a/b/c", "/a/d", "/e", "/e/f", "/e/f/g", "/h"}).Draw(t, label)
}

// act does one drawn operation on a peer and on the model, which must agree whether and why it fails.
func act(t *rapid.T, b *bench, m model, n int) {
	b.names.pass(time.Second)
	path, other := drawPath(t, "path"), drawPath(t, "other")
	flag := rapid.Bool().Draw(t, "flag")
	var got, want error
	op := rapid.SampledFrom([]string{"put", "put", "create", "mkdir", "remove", "move", "copy", "undo", "purge"}).Draw(t, "op")
	switch op {
	case "put":
		text := fmt.Sprint("text ", n)
		got, want = b.put(path, text), m.put(path, text)
	case "create":
		text := fmt.Sprint("text ", n)
		got = create(b, path, text)
		if want = m.parents(path, false); want == nil || m.kind(path) != 0 {
			want = m.put(path, text)
		}
	case "mkdir":
		got, want = b.Mkdir(ctx, path, MkdirOptions{}), m.mkdir(path)
	case "remove":
		got, want = b.Remove(ctx, path, flag), m.remove(path, flag)
	case "move":
		got, want = b.Move(ctx, path, other, flag), m.transfer(path, other, flag, true)
	case "copy":
		got, want = b.Copy(ctx, path, other, flag), m.transfer(path, other, flag, false)
	case "purge":
		if _, got = b.Purge(ctx, path); errors.Is(got, ErrNotExist) {
			got, want = nil, nil // it may be known of and show nothing
		}
		b.bytes.collect(b.Live())
	case "undo":
		// What a restore brings back depends on the past; here it undoes a removal at once, so nothing changes.
		if m.kind(path) == 0 {
			return
		}
		if got = b.Remove(ctx, path, true); got == nil {
			_, got = b.Restore(ctx, path, ID{})
		}
	}
	if want == nil && got != nil || !errors.Is(got, want) {
		t.Fatalf("%s %s %s %v: %v, the model says %v", op, path, other, flag, got, want)
	}
}

func create(b *bench, path, text string) error {
	w, err := b.Create(ctx, path, CreateOptions{})
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return err
	}
	return w.Close()
}

// TestModel does operations at random on one peer and compares it with the model after each.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t, "ann")
		defer b.Close()
		m := model{}
		for n := range rapid.IntRange(1, 30).Draw(rt, "operations") {
			act(rt, b, m, n)
			if got := b.show(); !maps.Equal(got, m) {
				rt.Fatalf("shown is %v, the model has %v", got, map[string]string(m))
			}
		}
		again := openBench(t, b.names, b.bytes)
		defer again.Close()
		if got := again.show(); !maps.Equal(got, m) {
			rt.Fatalf("opened again it shows %v, the model has %v", got, map[string]string(m))
		}
		if gone := b.bytes.collect(b.Live()); gone > 0 {
			rt.Fatalf("%d files had no version", gone)
		}
		b.show() // reads all of it
	})
}

// TestApartAndTogether has three peers work apart and meet now and then. In the end all show the same, and nothing
// that was put and neither replaced nor removed by somebody who knew of it is lost.
func TestApartAndTogether(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store := newFakeBytes()
		var peers []*bench
		for _, name := range []string{"ann", "bob", "cat"} {
			b := openBench(t, newFakeNames(peer.ID("peer "+name)), store)
			defer b.Close()
			peers = append(peers, b)
		}
		for n := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			b := rapid.SampledFrom(peers).Draw(rt, "peer")
			if rapid.IntRange(0, 4).Draw(rt, "meet") == 0 {
				meet(b.names, rapid.SampledFrom(peers).Draw(rt, "whom").names)
				continue
			}
			path, other := drawPath(rt, "path"), drawPath(rt, "other")
			b.names.pass(time.Second)
			switch rapid.SampledFrom([]string{"put", "put", "put", "remove", "move", "conflict", "purge"}).Draw(rt, "op") {
			case "put":
				_ = b.put(path, fmt.Sprint(n, " by ", b.cfg.Name)) // may not fit: that is another test
			case "remove":
				_ = b.Remove(ctx, path, true)
			case "move":
				_ = b.Move(ctx, path, other, rapid.Bool().Draw(rt, "overwrite"))
			case "purge":
				before := b.show()
				_, _ = b.Purge(ctx, path)
				if got := b.show(); !maps.Equal(got, before) {
					rt.Fatalf("purging %s made %v of %v", path, got, before)
				}
			case "conflict":
				settle(b)
			}
		}
		for range 2 {
			meet(peers[0].names, peers[1].names)
			meet(peers[1].names, peers[2].names)
		}
		shown := peers[0].show()
		for _, b := range peers[1:] {
			if got := b.show(); !maps.Equal(got, shown) {
				rt.Fatalf("one shows %v, another %v", shown, got)
			}
		}
		for _, text := range unreplaced(rt, peers[0]) {
			if !slices.Contains(slices.Collect(maps.Values(shown)), text) {
				rt.Fatalf("%q is lost of %v", text, shown)
			}
		}
	})
}

// settle removes the first conflict there is.
func settle(b *bench) {
	for e := range b.Walk("/") {
		if e.Conflict {
			b.ok(b.Remove(ctx, e.Path, false))
			return
		}
	}
}

// unreplaced reads, from the records alone, what all files say that no version replaces.
func unreplaced(t *rapid.T, b *bench) (texts []string) {
	replaced := map[string]bool{}
	roots := map[string]paths.Version{}
	for r := range b.names.Scan(filePrefix) {
		path, v, err := newDecoder().version(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range v.Replaces {
			replaced[path+" "+id.String()] = true
		}
		roots[path+" "+v.ID.String()] = v
	}
	for key, v := range roots {
		if !replaced[key] && v.Kind == File {
			texts = append(texts, string(b.bytes.durable[v.Root]))
		}
	}
	return texts
}

// TestSecuring: what Create names has its copies made behind its back, in bounded numbers, and Close stops that.
func TestSecuring(t *testing.T) {
	b := newBench(t, "ann")
	b.bytes.holding = make(chan struct{})
	for i := range secureWorkers + 3 {
		b.ok(create(b, fmt.Sprint("/f", i), fmt.Sprint("text ", i)))
	}
	if s := b.Status(); s.Securing != secureWorkers+3 {
		t.Errorf("%d pieces wait for copies", s.Securing)
	}
	close(b.bytes.holding)
	for b.Status().Securing > 0 {
		runtime.Gosched()
	}
	b.bytes.mu.Lock()
	if b.bytes.secured != secureWorkers+3 {
		t.Errorf("%d pieces have copies", b.bytes.secured)
	}
	b.bytes.holding = make(chan struct{})
	b.bytes.mu.Unlock()

	short, cancel := context.WithCancel(ctx)
	p := b.NewPut(PutOptions{})
	b.ok(p.File(short, "/late", 0, birth, strings.NewReader("late")))
	cancel()
	if _, err := p.Commit(short); !errors.Is(err, context.Canceled) {
		t.Errorf("a put that waits for copies when it is called off: %v", err)
	}
	_, err := b.Stat("/late")
	b.want(err, ErrNotExist)
	b.ok(create(b, "/last", "last"))
	b.ok(b.Close())
	b.want(b.put("/more", "more"), ErrClosed)
	b.want(create(b, "/more", "more"), ErrClosed)
}
