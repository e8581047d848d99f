package tree

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestPowerLoss cuts the power at each step of changing the tree: each time the state after it is the old or the new
// one, file by file; everything that is shown can be read; and what has no name is found by the collector.
func TestPowerLoss(t *testing.T) {
	old := map[string]string{"/d/": "", "/d/changed": "old", "/d/same": "same", "/d/gone": "gone", "/m/": "", "/m/1": "one", "/m/2": "two"}
	for name, f := range map[string]struct {
		do  func(*bench) error
		new map[string]string
	}{
		"put": {func(b *bench) error {
			p := b.NewPut(PutOptions{})
			defer p.Abort()
			for _, file := range [][2]string{{"/d/changed", "new"}, {"/d/same", "same"}, {"/n/deep/file", "first"}} {
				if err := p.File(ctx, file[0], 0o644, birth, strings.NewReader(file[1])); err != nil {
					return err
				}
			}
			_, err := p.Commit(ctx)
			return err
		}, map[string]string{"/d/changed": "new", "/n/": "", "/n/deep/": "", "/n/deep/file": "first"}},
		"create": {func(b *bench) error { return create(b, "/d/changed", "new") }, map[string]string{"/d/changed": "new"}},
		"put much": {func(b *bench) error {
			p := b.NewPut(PutOptions{})
			defer p.Abort()
			for i := range 2*putFiles + 3 {
				if err := p.File(ctx, fmt.Sprint("/n/", i), 0o644, birth, strings.NewReader(fmt.Sprint(i))); err != nil {
					return err
				}
			}
			_, err := p.Commit(ctx)
			return err
		}, many(2*putFiles + 3)},
		"remove": {func(b *bench) error { return b.Remove(ctx, "/d/gone", false) }, map[string]string{"/d/gone": "-"}},
		"copy":   {func(b *bench) error { return b.Copy(ctx, "/m", "/n", false) }, map[string]string{"/n/": "", "/n/1": "one", "/n/2": "two"}},
		"move": {func(b *bench) error { return b.Move(ctx, "/m", "/n", false) },
			map[string]string{"/n/": "", "/n/1": "one", "/n/2": "two", "/m/": "-", "/m/1": "-", "/m/2": "-"}},
		"touch": {func(b *bench) error { return b.SetTimes(ctx, "/d/same", birth.Add(-time.Hour)) }, nil},
		"purge": {func(b *bench) error {
			_, err := b.Purge(ctx, "/")
			return err
		}, nil},
		"restore": {func(b *bench) error {
			_, err := b.Restore(ctx, "/d/changed", ID{})
			return err
		}, map[string]string{"/d/changed": "older"}},
	} {
		t.Run(name, func(t *testing.T) {
			for step := 0; ; step += 1 + step/40 {
				whole := losePower(t, step, old, f.new, f.do)
				if whole {
					if step < 2 {
						t.Error("there was no step at which the power could fail")
					}
					break
				}
			}
		})
	}
}

func many(n int) map[string]string {
	out := map[string]string{"/n/": ""}
	for i := range n {
		out[fmt.Sprint("/n/", i)] = fmt.Sprint(i)
	}
	return out
}

// losePower lets f run for some steps, and looks at what is left. It reports whether f came to its end.
func losePower(t *testing.T, steps int, old, changes map[string]string, f func(*bench) error) bool {
	b := openBench(t, newFakeNames(peer.ID("peer ann")), newFakeBytes())
	b.ok(b.put("/d/changed", "older"))
	for path, text := range old {
		if !strings.HasSuffix(path, "/") {
			b.ok(b.put(path, text))
		}
	}
	b.shows(old)
	p := &power{left: steps}
	b.names.power, b.bytes.power = p, p
	err := f(b)
	_ = b.Close()
	b.names.power, b.bytes.power = nil, nil
	if b.bytes.batches != 0 {
		t.Errorf("after %d steps %d batches are open", steps, b.bytes.batches)
	}

	after := openBench(t, b.names, b.bytes)
	defer after.Close()
	shown := after.show() // fails if something cannot be read
	for path, text := range shown {
		if text != old[path] && text != changes[path] || !has(old, path) && !has(changes, path) {
			t.Errorf("after %d steps %s has %q, neither old nor new", steps, path, text)
		}
	}
	for path := range old {
		if !has(shown, path) && changes[path] != "-" {
			t.Errorf("after %d steps %s is gone", steps, path)
		}
	}
	for _, n := range []string{"1", "2"} {
		if !has(shown, "/m/"+n) && !has(shown, "/n/"+n) {
			t.Errorf("after %d steps /m/%s is at neither path", steps, n)
		}
	}
	if !strings.HasPrefix(t.Name(), "TestGuards") {
		b.bytes.collect(after.Live())
		if orphans := b.bytes.collect(after.Live()); orphans != 0 {
			t.Errorf("%d orphans are left", orphans)
		}
		after.shows(shown)
	}
	if err != nil {
		return false
	}
	want := maps.Clone(old)
	maps.Copy(want, changes)
	maps.DeleteFunc(want, func(_, text string) bool { return text == "-" })
	after.shows(want)
	return true
}

func has(m map[string]string, path string) bool {
	_, ok := m[path]
	return ok
}

// TestGuardsOfPut takes away what TestPowerLoss relies on: with the names written before the bytes are durable, there
// must be a step after which something that is shown cannot be read.
func TestGuardsOfPut(t *testing.T) {
	b := openBench(t, newFakeNames(peer.ID("peer ann")), newFakeBytes())
	batch := b.bytes.NewBatch()
	f, err := batch.Add(ctx, strings.NewReader("never durable"))
	b.ok(err)
	b.ok(b.save(ctx, []draft{b.fileDraft("/f", f, 0o644, birth, 3)}))
	batch.Close()
	if _, err := b.cat("/f"); err == nil {
		t.Error("a name without bytes can be read: the test for that proves nothing")
	}
}
