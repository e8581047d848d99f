package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-os/shoal/storage/folder/crash"
)

// put writes and fails the test if it cannot.
func (x *fakeNode) put(key, value string) {
	x.pool.t.Helper()
	if err := x.Put(key, []byte(value)); err != nil {
		x.pool.t.Fatal(err)
	}
}

// value is what a key holds, "-" if nothing.
func (x *fakeNode) value(key string) string {
	r, ok := x.Get(key)
	if !ok {
		return "-"
	}
	return string(r.Value)
}

func keysOf(d *Directory, prefix string) (out []string) {
	for r := range d.Scan(prefix) {
		out = append(out, r.Key)
	}
	return out
}

func TestOneAlone(t *testing.T) {
	x := newFakePool(t).join(1)
	x.put("b", "1")
	x.put("a/1", "2")
	x.put("a/2", "3")
	x.put("a/1", "4")
	if err := x.Delete("a/2"); err != nil {
		t.Fatal(err)
	}
	if err := x.Delete("never there"); err != nil {
		t.Fatal(err)
	}
	if got := keysOf(x.Directory, ""); !slices.Equal(got, []string{"a/1", "b"}) {
		t.Errorf("keys %q", got)
	}
	if x.value("a/1") != "4" || x.value("a/2") != "-" || x.Len() != 2 {
		t.Errorf("%q, %q, %d keys", x.value("a/1"), x.value("a/2"), x.Len())
	}
	if s := x.Status(); s.Tombstones != 1 || s.Live != 2 || s.Offset != 0 {
		t.Errorf("%+v", s)
	}
	digest := x.Digest()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.Put("late", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after closing: %v", err)
	}
	x.open()
	if x.Digest() != digest || x.value("a/1") != "4" {
		t.Error("reopened, it holds something else")
	}
}

func TestOnRealDisk(t *testing.T) {
	x := newFakePool(t).join(1)
	cfg := x.config()
	cfg.Dir = t.TempDir()
	d, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Put("key", []byte("value")), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	if r, ok := d.Get("key"); !ok || string(r.Value) != "value" {
		t.Error("the value is gone")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Pool = [32]byte{'o'}
	if _, err := Open(cfg); err == nil {
		t.Error("another pool's files were opened")
	}
}

func TestLimits(t *testing.T) {
	x := newFakePool(t).join(1)
	big := bytes.Repeat([]byte{1}, ValueMax)
	for key, fits := range map[string]bool{
		strings.Repeat("k", KeyMax): true, strings.Repeat("k", KeyMax+1): false,
		"": false, "bad\xff": false, "nul\x00": false,
	} {
		if err := x.Put(key, big); (err == nil) != fits {
			t.Errorf("a key of %d bytes: %v", len(key), err)
		}
	}
	if err := x.Put("k", append(big, 0)); err == nil {
		t.Error("a value beyond the limit")
	}
	if err := x.Delete(""); err == nil {
		t.Error("the empty key was deleted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := x.Write(ctx, Change{Key: "k"}); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestScanWhileWriting(t *testing.T) {
	x := newFakePool(t).join(1)
	var changes []Change
	for i := range 3*scanPage + 7 {
		changes = append(changes, Change{Key: fmt.Sprintf("k/%04d", i)})
	}
	if err := x.Write(t.Context(), changes...); err != nil {
		t.Fatal(err)
	}
	n := 0
	for r := range x.Scan("k/") {
		n++
		if err := x.Delete(r.Key); err != nil {
			t.Fatal(err)
		}
	}
	if n != len(changes) || x.Len() != 0 {
		t.Errorf("saw %d of %d, left %d", n, len(changes), x.Len())
	}
	for range x.Scan("k/") {
		t.Error("deleted records are scanned")
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t)
		a, b := p.join(1), p.join(2)
		p.connect(1, a, b)
		var mu sync.Mutex
		var seen []string
		stop := b.Watch("w/", func(r *Record) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprintf("%s=%s %v", r.Key, r.Value, r.Deleted))
			if r.Key == "w/1" && len(r.Value) > 0 { // a watcher may write
				if err := b.Put("answer", r.Value); err != nil {
					t.Error(err)
				}
			}
		})
		a.put("w/1", "x")
		a.put("other", "x")
		settle(time.Second)
		if err := a.Delete("w/1"); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		stop()
		a.put("w/2", "x")
		settle(time.Second)
		if !slices.Equal(seen, []string{"w/1=x false", "w/1= true"}) || a.value("answer") != "x" {
			t.Errorf("seen %q, answer %q", seen, a.value("answer"))
		}
	})
}

// settle lets virtual time pass.
func settle(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestConcurrentWritersShareSyncs(t *testing.T) {
	x := newFakePool(t).join(1)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 20 {
				if err := x.Put(fmt.Sprintf("k%d", (i+j)%16), fmt.Appendf(nil, "%d %d", i, j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if x.Len() != 16 {
		t.Errorf("%d keys", x.Len())
	}
	digest := x.Digest()
	_ = x.Close()
	x.fs = x.fs.(*crash.FS).Reboot()
	if x.open(); x.Digest() != digest {
		t.Error("reopened, it holds something else")
	}
}

// TestCrashAtEveryStep writes, with snapshots in between, and loses the power at each step of the disk.
func TestCrashAtEveryStep(t *testing.T) {
	steps := 0
	for n := 1; ; n++ {
		alive := true
		for seed := range uint64(4) {
			fs := crash.New(seed)
			acked, tried, dead := crashScript(t, fs, n)
			alive = alive && !dead
			p := newFakePool(t)
			x := p.joinWith(1, fs.Reboot(), 0)
			for key, want := range acked {
				if got := x.value(key); got != want && key != tried {
					t.Fatalf("step %d, seed %d: %s is %q, acknowledged was %q", n, seed, key, got, want)
				}
			}
			x.put("after", "x")
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			x.fs = x.fs.(*crash.FS).Reboot()
			if x.open(); x.value("after") != "x" {
				t.Fatalf("step %d, seed %d: written after the crash and gone", n, seed)
			}
			_ = x.Close()
		}
		if alive {
			break
		}
		steps++
	}
	t.Logf("%d steps", steps)
	if steps < 30 {
		t.Errorf("only %d steps", steps)
	}
}

// crashScript writes until the power fails at step n. It returns what was acknowledged ("-" for deletions), and the
// key of the write that was not.
func crashScript(t *testing.T, fs *crash.FS, n int) (acked map[string]string, tried string, dead bool) {
	acked = map[string]string{}
	fs.CrashAt(n)
	x := newFakePool(t).joinWith(1, fs, 0)
	defer x.Close()
	for i := range 14 {
		key, value := fmt.Sprint("key", i%4), strings.Repeat(fmt.Sprint(i), 200)
		var err error
		if i%5 == 4 {
			value, err = "-", x.Delete(key)
		} else {
			err = x.Put(key, []byte(value))
		}
		if err != nil {
			return acked, key, true
		}
		acked[key] = value
		if i%4 == 3 {
			_ = x.submit(x.ctx, &job{compact: true, decide: func(*batch) error { return nil }})
		}
	}
	_ = x.Close() // waits for the snapshot
	return acked, "", fs.Dead()
}

func TestFullDiskIsToldAndSurvived(t *testing.T) {
	fs := crash.New(1)
	x := newFakePool(t).joinWith(1, fs, 0)
	x.put("a", "1")
	fs.FailAt(1)
	if err := x.Put("b", []byte("1")); !errors.Is(err, crash.ErrFault) {
		t.Errorf("a failed write: %v", err)
	}
	if x.value("b") != "-" {
		t.Error("what was not acknowledged is visible")
	}
	x.put("b", "2")
	_ = x.Close()
	x.fs = fs.Reboot()
	if x.open(); x.value("a") != "1" || x.value("b") != "2" {
		t.Errorf("a is %q, b is %q", x.value("a"), x.value("b"))
	}
}

func TestCostsWhatItHolds(t *testing.T) {
	fs := crash.New(1)
	x := newFakePool(t).joinWith(1, fs, 0)
	value := make([]byte, 20_000)
	for i := range 400 { // eight megabytes of history of one key
		value = bytes.Clone(value)
		value[0] = byte(i)
		if err := x.Put("key", value); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if size := fs.Total(); size > 2<<20 {
		t.Errorf("%d bytes on disk for 20,000", size)
	}
}

func TestValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := Values{newFakePool(t).join(1).Directory}
		var seen []string
		v.Watch("member/", func(key string) { seen = append(seen, key) })
		for range 3 {
			if err := errors.Join(v.Put("member/a", []byte("1")), v.Put("member/b", []byte("2"))); err != nil {
				t.Fatal(err)
			}
			settle(time.Second)
		}
		got := ""
		for key, value := range v.Scan("member/") {
			got += fmt.Sprintf("%s=%s ", key, value)
		}
		if got != "member/a=1 member/b=2 " || !slices.Equal(seen, []string{"member/a", "member/b"}) {
			t.Errorf("scanned %q, seen %q", got, seen)
		}
	})
}

// TestWaitingWritersSeeEachOther: of writes that share a sync of the disk, the later builds on the earlier.
func TestWaitingWritersSeeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFakePool(t).join(1)
		var wg sync.WaitGroup
		started, release := make(chan struct{}), make(chan struct{})
		wg.Go(func() {
			_ = x.submit(t.Context(), &job{decide: func(*batch) error {
				close(started)
				<-release
				return nil
			}})
		})
		<-started
		for _, write := range []func() error{
			func() error { return x.Put("k", []byte("1")) },
			func() error { return x.Delete("k") },
		} {
			wg.Go(func() {
				if err := write(); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait() // it is in the queue
		}
		close(release)
		wg.Wait()
		if s := x.Status(); s.Live != 0 || s.Tombstones != 1 {
			t.Errorf("%+v", s)
		}
	})
}
