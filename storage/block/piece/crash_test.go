package piece

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/folder/crash"
)

var crashSeeds = flag.Uint64("crash-seeds", 1, "how many times the power fails at each step")

// world is what the store of a crash test was told and has acknowledged.
type world struct {
	s     *Store
	clk   *clock
	bytes map[chunk.CID][]byte // of all that was ever added
	acked map[chunk.CID]bool   // held for sure: true; aside for sure: false; anything may be: not in it
	pins  map[chunk.CID]bool
}

func openWorld(t testing.TB, fs *crash.FS) (*world, error) {
	w := &world{clk: newClock(), bytes: map[chunk.CID][]byte{}, acked: map[chunk.CID]bool{}, pins: map[chunk.CID]bool{}}
	return w, w.open(t, fs)
}

func (w *world) open(t testing.TB, fs *crash.FS) (err error) {
	w.s, err = Open(w.config(t, fs))
	return err
}

func (w *world) config(t testing.TB, fs *crash.FS) Config {
	return Config{Dir: t.TempDir(), Quota: 16 << 20, Log: discard(), Now: w.clk.now, fs: fs}
}

// put adds files in one batch.
func (w *world) put(files ...[]byte) error {
	b := w.s.NewBatch()
	defer b.Close()
	var ids []chunk.CID
	for _, data := range files {
		id := dag(data)
		w.bytes[id] = data
		if w.acked[id] == false {
			delete(w.acked, id)
		}
		ids = append(ids, id)
		f, err := b.Add(context.Background(), bytes.NewReader(data))
		if err != nil {
			return err
		}
		if f.Root != id {
			return fmt.Errorf("root %s, want %s", f.Root, id)
		}
	}
	if err := b.Commit(); err != nil {
		return err
	}
	for _, id := range ids {
		w.acked[id] = true
	}
	return nil
}

func (w *world) quarantine(files ...[]byte) error {
	for _, data := range files {
		delete(w.acked, dag(data))
	}
	for _, data := range files {
		if err := w.s.Quarantine(dag(data)); err != nil {
			return err
		}
		w.acked[dag(data)] = false
	}
	return nil
}

func (w *world) restore(data []byte) error {
	delete(w.acked, dag(data))
	if !w.s.Restore(dag(data)) {
		return errors.New("not restored")
	}
	w.acked[dag(data)] = true
	return nil
}

// purge deletes what is aside. A crash soon after may bring it back, as held: Collect finds it again.
func (w *world) purge() error {
	for id, held := range w.acked {
		if !held {
			delete(w.acked, id)
		}
	}
	w.clk.t = w.clk.t.Add(QuarantineTime)
	_, err := w.s.Purge(false)
	return err
}

func (w *world) pin(data []byte) error {
	if err := w.s.Pin(dag(data), "a pin"); err != nil {
		return err
	}
	w.pins[dag(data)] = true
	return nil
}

// names is what Collect is told to keep: what was acknowledged.
func (w *world) names(id chunk.CID) bool { return w.acked[id] }

// check compares what the store holds with what was acknowledged: nothing acknowledged is lost, nothing else than the
// right bytes is given, and once what nobody named is collected no byte of it is left.
func (w *world) check(t testing.TB, fs *crash.FS) {
	t.Helper()
	for id, held := range w.acked {
		if w.s.Has(id) != held {
			t.Fatalf("%s: held %v, acknowledged %v", id, !held, held)
		}
	}
	for p := range w.s.All() {
		got, err := read(w.s, File{p.ID, p.Size, []Piece{p}})
		if err != nil || !bytes.Equal(got, w.bytes[p.ID]) {
			t.Fatalf("%s is held and reads as %d bytes, %v", p.ID, len(got), err)
		}
		if err := w.s.Verify(context.Background(), p.ID); err != nil {
			t.Fatal(err)
		}
	}
	checkSums(t, w.s)
	for id := range w.pins {
		if !w.s.Pinned(id) {
			t.Fatalf("%s is not pinned any more", id)
		}
	}
	w.clk.t = w.clk.t.Add(time.Hour)
	collect(t, w.s, w.names)
	if _, err := w.s.Purge(true); err != nil {
		t.Fatal(err)
	}
	for id, held := range w.acked {
		if !held {
			delete(w.acked, id) // see purge
		}
	}
	for id := range w.s.index.all() {
		if !w.acked[id] && !w.pins[id] {
			t.Fatalf("%s is an orphan", id)
		}
	}
	checkSums(t, w.s)
	for _, name := range fs.Names() {
		id := strings.TrimPrefix(name, largeDir+"/")
		if c, err := chunk.ParseCID(id); id != name && (err != nil || !w.acked[c] && !w.pins[c]) {
			t.Fatalf("%s is left over", name)
		}
	}
	if u := w.s.Usage(); u.Waste > u.Held+1<<20 {
		t.Fatalf("%+v", u)
	}
}

// script is what is done until the power fails.
func (w *world) script(t testing.TB, fs *crash.FS) error {
	large, larger := noise(1, SmallMax+10), noise(2, SmallMax+5000)
	var small [][]byte
	for i := range 30 {
		small = append(small, noise(uint64(100+i), 60_000))
	}
	for _, step := range []func() error{
		func() error { return w.put(small[0]) },
		func() error { return w.put(append(small[1:12:12], large)...) },
		func() error { return w.put(small[12:24]...) },
		func() error { return w.pin(small[3]) },
		func() error { return w.put(append(small[20:28:28], larger)...) },
		func() error { return w.quarantine(large, small[0], small[5]) },
		func() error { return w.restore(small[5]) },
		func() error { return w.put(large) },
		func() error { return w.quarantine(append(small[8:24:24], larger)...) },
		w.purge,
		func() error { return w.put(append(small[10:14:14], larger)...) },
		func() error { return w.s.Close() },
		func() error { return w.open(t, fs) },
		func() error { return w.put(small[28]) },
		func() error { return w.quarantine(small[28]) },
		func() error { _, err := w.s.Collect(w.names); return err },
		func() error { return w.put(small[29]) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func TestPowerFailsAtEveryStep(t *testing.T) {
	seeds := *crashSeeds
	for n := 1; ; n++ {
		done := false
		for seed := range seeds {
			fs := crash.New(seed<<32 + uint64(n))
			fs.CrashAt(n)
			w, err := openWorld(t, fs)
			if err == nil {
				err = w.script(t, fs)
			}
			if err == nil {
				done = true
				break
			}
			if !fs.Dead() {
				t.Fatalf("step %d seed %d: %v", n, seed, err)
			}
			at := fmt.Sprintf("power fails at step %d, seed %d, ", n, seed)
			if (seed+uint64(n))%2 == 1 { // only the process ends; what the next one holds has to survive
				fs = fs.Kill()
				if err := w.open(t, fs); err != nil {
					t.Fatalf("%sopen: %v", at, err)
				}
				clear(w.acked)
				for p := range w.s.All() {
					w.acked[p.ID] = true
				}
			}
			for range 2 { // and again while it is mended
				fs = fs.Reboot()
				if err := w.open(t, fs); err != nil {
					t.Fatalf("%sopen: %v", at, err)
				}
				fs.CrashAt(3 + n%7)
				_ = w.put(noise(7, 1000), noise(8, 70_000))
			}
			fs = fs.Reboot()
			if err := w.open(t, fs); err != nil {
				t.Fatalf("%sopen: %v", at, err)
			}
			if !t.Run(at, func(t *testing.T) { w.check(t, fs) }) {
				return
			}
		}
		if done {
			if n < 100 {
				t.Fatalf("only %d steps", n)
			}
			return
		}
	}
}

func TestAWriteFailsAtEveryStep(t *testing.T) {
	for n := 1; ; n++ {
		fs := crash.New(uint64(n))
		fs.FailAt(n)
		w, err := openWorld(t, fs)
		if err != nil {
			continue // told at once
		}
		err = w.script(t, fs)
		if err != nil {
			w.s.Close()
			if err := w.open(t, fs); err != nil {
				t.Fatal(err)
			}
		}
		again := noise(50, 5000)
		if err := w.put(again); err != nil {
			t.Fatalf("step %d: the store does not recover: %v", n, err)
		}
		if !t.Run(fmt.Sprintf("step %d fails", n), func(t *testing.T) { w.check(t, fs) }) {
			return
		}
		fs = fs.Reboot()
		if err := w.open(t, fs); err != nil {
			t.Fatal(err)
		}
		if !t.Run(fmt.Sprintf("after step %d failed", n), func(t *testing.T) { w.check(t, fs) }) {
			return
		}
		if err == nil && n > 100 {
			return
		}
	}
}

// TestAnothersWriteFails: what is in the same pack, not yet durable, is lost with it, and its batch must say so.
func TestAnothersWriteFails(t *testing.T) {
	fs := crash.New(1)
	w, err := openWorld(t, fs)
	if err != nil {
		t.Fatal(err)
	}
	a, b := w.s.NewBatch(), w.s.NewBatch()
	defer a.Close()
	defer b.Close()
	data := noise(1, 1000)
	if err := a.AddSmall(chunk.SumRaw(data), data); err != nil {
		t.Fatal(err)
	}
	fs.FailAt(2)
	for i := 0; err == nil; i++ {
		_, err = b.Add(context.Background(), bytes.NewReader(noise(uint64(2+i), 100_000)))
	}
	if !errors.Is(err, crash.ErrFault) {
		t.Fatal(err)
	}
	if err := a.Commit(); !errors.Is(err, pack.ErrLost) || w.s.Has(chunk.SumRaw(data)) {
		t.Fatal(err)
	}
	if err := w.put(data); err != nil {
		t.Fatal(err)
	}
	w.check(t, fs)
}

// TestOldMarksDoNotComeBack: the file of marks that a process began tells nothing of what was taken back. So a file from
// before, which the power brings back though it was removed, must not be read once that is acknowledged.
func TestOldMarksDoNotComeBack(t *testing.T) {
	for seed := range uint64(16) {
		fs := crash.New(seed)
		w, err := openWorld(t, fs)
		if err != nil {
			t.Fatal(err)
		}
		restored, added, pinned := noise(1, 1000), noise(2, 1000), noise(3, 1000)
		if err := errors.Join(
			w.put(restored, added, pinned), w.quarantine(restored, added), w.pin(pinned), w.s.Close(), w.open(t, fs),
			w.restore(restored), w.put(added), w.s.Unpin(dag(pinned), "a pin"),
		); err != nil {
			t.Fatal(err)
		}
		delete(w.pins, dag(pinned))
		fs = fs.Reboot()
		if err := w.open(t, fs); err != nil {
			t.Fatal(err)
		}
		if w.s.Pinned(dag(pinned)) {
			t.Fatalf("seed %d: pinned again", seed)
		}
		w.check(t, fs)
	}
}

// noMarks is a folder in which marks cannot be made durable.
type noMarks struct {
	folder.FS
	broken bool
}

func (f *noMarks) Create(name string) (folder.File, error) {
	if f.broken && strings.HasPrefix(name, marksDir) {
		return nil, crash.ErrFault
	}
	return f.FS.Create(name)
}

// TestRestoredOnlyWhenDurable: what memory holds and the disk still sets aside is not said to be restored, however often
// somebody asks.
func TestRestoredOnlyWhenDurable(t *testing.T) {
	inner := crash.New(1)
	fs := &noMarks{FS: inner}
	cfg := Config{Dir: t.TempDir(), fs: fs}
	s := mustOpen(t, cfg)
	id := put(t, s, noise(1, 1000)).Root
	if err := errors.Join(s.Quarantine(id), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, cfg)
	fs.broken = true
	for range 2 {
		if s.Restore(id) {
			t.Fatal("restored, and no mark of that is on the disk")
		}
	}
	fs.broken = false
	if !s.Restore(id) {
		t.Fatal("not restored")
	}
	s = mustOpen(t, Config{Dir: t.TempDir(), fs: inner.Reboot()})
	if !s.Has(id) {
		t.Fatal("it was restored, and is not held after a loss of power")
	}
}
