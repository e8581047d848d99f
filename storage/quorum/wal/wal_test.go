package wal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/folder/crash"
)

// owner keeps a text for each group: Whole sets it, More adds to it.
type owner struct {
	t     testing.TB
	log   *Log
	mu    sync.Mutex
	texts map[[32]byte]string
}

var small = limits{segment: 600, slack: 1500}

func openOwner(t testing.TB, fs folder.FS) (*owner, Opened, error) {
	o := &owner{t: t, texts: map[[32]byte]string{}}
	var opened Opened
	var err error
	o.log, opened, err = open(fs, o.load, o.whole, small)
	return o, opened, err
}

func (o *owner) load(r Record) error {
	switch r.Kind {
	case Whole:
		o.texts[r.Group] = string(r.Data)
	case More:
		was, ok := o.texts[r.Group]
		if !ok {
			return errors.New("a record that goes on from nothing")
		}
		// What a failed segment and the next one both hold comes twice.
		if !strings.HasSuffix(was, string(r.Data)) {
			o.texts[r.Group] = was + string(r.Data)
		}
	case Gone:
		delete(o.texts, r.Group)
	}
	return nil
}

// whole is what the log asks for.
func (o *owner) whole(id [32]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if text, ok := o.texts[id]; ok {
		_ = o.log.Append([]Record{{id, Whole, []byte(text)}}, false, nil)
	}
}

// do changes a group and waits until that is durable. false: it never will be.
func (o *owner) do(r Record) bool {
	done := make(chan struct{})
	o.mu.Lock()
	switch r.Kind {
	case More:
		o.texts[r.Group] += string(r.Data)
	case Whole:
		o.texts[r.Group] = string(r.Data)
	case Gone:
		delete(o.texts, r.Group)
	}
	err := o.log.Append([]Record{r}, true, func() { close(done) })
	o.mu.Unlock()
	if err != nil {
		return false
	}
	for {
		select {
		case <-done:
			return true
		default:
		}
		if o.log.Problem() != nil {
			return false
		}
		synctest.Wait()
	}
}

// script changes groups until the disk fails. It returns what was acknowledged, and the group whose last change was not.
func script(t testing.TB, fs folder.FS, n int) (acked map[[32]byte]string, tried [32]byte, o *owner) {
	acked = map[[32]byte]string{}
	o, _, err := openOwner(t, fs)
	if err != nil {
		return acked, tried, nil
	}
	acked = maps.Clone(o.texts)
	for i := range n {
		id := [32]byte{byte(i%4 + 1)}
		r := Record{id, More, fmt.Appendf(nil, " word %d of many.", i)}
		if _, ok := o.texts[id]; !ok || i%9 == 8 {
			r.Kind, r.Data = Whole, fmt.Appendf(nil, "Text %d:", i)
		}
		if i%23 == 22 {
			r.Kind = Gone
		}
		if !o.do(r) {
			return acked, id, o
		}
		acked = maps.Clone(o.texts)
	}
	return acked, tried, o
}

func TestCrashAtEveryStep(t *testing.T) {
	steps := 0
	for n := 1; ; n++ {
		alive := false
		for seed := range uint64(12) {
			synctest.Test(t, func(t *testing.T) {
				fs := crash.New(seed)
				fs.CrashAt(n)
				acked, tried, o := script(t, fs, 60)
				alive = !fs.Dead()
				if o != nil {
					_ = o.log.Close()
				}
				checkAfter(t, fs.Reboot(), acked, tried, fmt.Sprintf("step %d, seed %d", n, seed))
			})
		}
		if alive {
			break
		}
		steps++
	}
	if t.Logf("%d steps", steps); steps < 100 {
		t.Error("too few steps")
	}
}

// checkAfter opens the folder after a crash, and goes on with it.
func checkAfter(t *testing.T, fs *crash.FS, acked map[[32]byte]string, tried [32]byte, where string) {
	t.Helper()
	o, _, err := openOwner(t, fs)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	for id := range acked {
		if id != tried && o.texts[id] != acked[id] {
			t.Fatalf("%s: group %d is %q, acknowledged was %q", where, id[0], o.texts[id], acked[id])
		}
	}
	for id := range o.texts {
		if _, ok := acked[id]; !ok && id != tried {
			t.Fatalf("%s: group %d came back", where, id[0])
		}
	}
	if !o.do(Record{[32]byte{9}, Whole, []byte("last")}) || o.log.Close() != nil {
		t.Fatalf("%s: it does not go on: %v", where, o.log.Problem())
	}
	again, _, err := openOwner(t, fs.Reboot())
	if err != nil || !maps.Equal(again.texts, o.texts) {
		t.Fatalf("%s: %v, then %v: %v", where, o.texts, again.texts, err)
	}
	_ = again.log.Close()
}

// A disk that fails once loses nothing, and all goes on by itself.
func TestFaultAtEveryStep(t *testing.T) {
	for n := 1; n < 400; n++ {
		synctest.Test(t, func(t *testing.T) {
			fs := crash.New(uint64(n))
			o, _, err := openOwner(t, fs)
			if err != nil {
				t.Fatal(err)
			}
			fs.FailAt(n)
			for i := range 60 {
				r := nth(i)
				for !o.doThrough(r) {
				}
			}
			want := maps.Clone(o.texts)
			if n%2 == 0 {
				fs = fs.Reboot() // without a proper end
				_ = o.log.Close()
			} else if err := o.log.Close(); err != nil {
				t.Fatalf("step %d: %v", n, err)
			}
			again, _, err := openOwner(t, fs.Reboot())
			if err != nil || !maps.Equal(again.texts, want) {
				t.Fatalf("step %d: %v, acknowledged was %v: %v", n, again.texts, want, err)
			}
			_ = again.log.Close()
		})
	}
}

// A disk that fails once and loses its power soon after has what was acknowledged.
func TestFaultAndThenCrash(t *testing.T) {
	for n := 1; n < 300; n++ {
		synctest.Test(t, func(t *testing.T) {
			fs := crash.New(uint64(n))
			o, _, err := openOwner(t, fs)
			if err != nil {
				t.Fatal(err)
			}
			fs.FailAt(1 + n/5)
			fs.CrashAt(1 + n/5 + 1 + n%5)
			acked, tried := map[[32]byte]string{}, [32]byte{}
			for i := range 60 {
				r := nth(i)
				if tried = r.Group; !o.doWithin(r, 3*retryAfter) {
					break
				}
				acked = maps.Clone(o.texts)
			}
			_ = o.log.Close()
			checkAfter(t, fs.Reboot(), acked, tried, fmt.Sprint("round ", n))
		})
	}
}

// nth is the i-th record of those that are written while a disk fails: of three groups in turn, the first of each and some later ones whole.
func nth(i int) Record {
	r := Record{[32]byte{byte(i%3 + 1)}, More, fmt.Appendf(nil, " %d.", i)}
	if i < 3 || i%10 == 9 {
		r.Kind = Whole
	}
	return r
}

// doThrough is do, but waits out a disk that fails for a while.
func (o *owner) doThrough(r Record) bool { return o.doWithin(r, time.Hour) }

// doWithin is doThrough for a while.
func (o *owner) doWithin(r Record, limit time.Duration) bool {
	done := make(chan struct{})
	o.mu.Lock()
	if r.Kind == More {
		o.texts[r.Group] += string(r.Data)
	} else {
		o.texts[r.Group] = string(r.Data)
	}
	_ = o.log.Append([]Record{r}, true, func() { close(done) })
	o.mu.Unlock()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// What a process had written and not synced when it was killed is read by the next one, which may promise things because of it.
func TestWhatWasReadIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(50) {
			fs := crash.New(seed)
			o, _, err := openOwner(t, fs)
			if err != nil {
				t.Fatal(err)
			}
			o.do(Record{[32]byte{1}, Whole, []byte("a")})
			_ = o.log.Append([]Record{{[32]byte{1}, More, []byte("b")}}, false, nil)
			synctest.Wait()
			next, _, err := openOwner(t, fs) // the first one is killed here, the power stays
			if err != nil {
				t.Fatal(err)
			}
			last, _, err := openOwner(t, fs.Reboot())
			if err != nil || last.texts[[32]byte{1}] != next.texts[[32]byte{1}] {
				t.Fatalf("seed %d: read %q, later %q: %v", seed, next.texts[[32]byte{1}], last.texts[[32]byte{1}], err)
			}
			for _, x := range []*owner{o, next, last} {
				_ = x.log.Close()
			}
		}
	})
}

func TestManyWritersShareASync(t *testing.T) {
	dir, err := folder.Dir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := Open(dir, func(Record) error { return nil }, func([32]byte) {})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 20 {
				done := make(chan struct{})
				kind := More
				if j == 0 {
					kind = Whole
				}
				_ = l.Append([]Record{{[32]byte{byte(i)}, kind, []byte("hello")}}, true, func() { close(done) })
				<-done
			}
		})
	}
	wg.Wait()
	if n := l.Syncs(); n > 640 {
		t.Errorf("%d syncs for 1,280 writes", n)
	} else {
		t.Logf("%d syncs for 1,280 writes", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(nil, true, nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestTakesWhatIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crash.New(1)
		o, _, err := openOwner(t, fs)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 { // groups that write once
			o.do(Record{[32]byte{byte(i + 2)}, Whole, []byte("small")})
		}
		most := int64(0)
		for i := range 2000 {
			r := Record{[32]byte{1}, More, []byte("x")}
			if i%20 == 0 {
				r.Kind = Whole
			}
			o.do(r)
			most = max(most, fs.Total())
		}
		if most > 12_000 {
			t.Errorf("%d bytes at most for 50 small groups", most)
		}
		_ = o.log.Close()
		if again, opened, err := openOwner(t, fs); err != nil || len(again.texts) != 51 {
			t.Errorf("%d groups, %+v: %v", len(again.texts), opened, err)
		} else {
			_ = again.log.Close()
		}
	})
}

// segmentsOf lists the files, oldest first.
func segmentsOf(fs *crash.FS) []string {
	return slices.DeleteFunc(fs.Names(), func(n string) bool { return !strings.HasSuffix(n, segmentSuffix) })
}

func TestDamageIsTold(t *testing.T) {
	for which := range 2 {
		synctest.Test(t, func(t *testing.T) {
			fs := crash.New(1)
			o, _, err := openOwner(t, fs)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 14 {
				o.do(Record{[32]byte{byte(i + 1)}, Whole, []byte("something that was promised")})
			}
			_ = o.log.Close()
			names := segmentsOf(fs)
			if len(names) < 2 {
				t.Fatal(names)
			}
			name := []string{names[0], names[len(names)-1]}[which]
			fs.Flip(name, 4*fs.Size(name)) // in its middle
			if _, _, err := openOwner(t, fs); !errors.Is(err, ErrDamaged) {
				t.Errorf("file %d: %v", which, err)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	raw := appendHeader(nil, 1, nil)
	raw = appendFrame(raw, 0, Record{[32]byte{1}, Whole, []byte("whole")})
	raw = appendFrame(raw, len(raw), Record{[32]byte{1}, More, []byte("more")})
	f.Add(raw)
	f.Add(raw[:len(raw)-3])
	f.Add(appendHeader(nil, 1, []segment{{1, 9}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		fs := crash.New(1)
		w, _ := fs.Create(segmentName(1))
		_, _ = w.Write(raw)
		l, _, err := Open(fs, func(Record) error { return nil }, func([32]byte) {})
		if err != nil {
			return
		}
		done := make(chan struct{})
		_ = l.Append([]Record{{[32]byte{1}, Whole, nil}}, true, func() { close(done) })
		<-done
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		data, err := folder.ReadFile(fs, segmentName(2), readMax)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := parseSegment(data, 2, func(Record) error { return nil }); err != nil || n != len(data) {
			t.Fatal(n, err)
		}
	})
}

// failingSync is a folder whose next syncs of a file fail, and drop what was to be made durable, as kernels do: a second one
// that succeeds proves nothing about it.
type failingSync struct {
	folder.FS
	fail atomic.Int32 // how many are to fail
}

func (f *failingSync) Create(name string) (folder.File, error) {
	inner, err := f.FS.Create(name)
	return &forgetful{File: inner, fs: f}, err
}

// forgetful is a file of failingSync. What it was given goes to the folder below with the sync.
type forgetful struct {
	folder.File
	fs    *failingSync
	loose []byte
}

func (f *forgetful) Write(p []byte) (int, error) {
	f.loose = append(f.loose, p...)
	return len(p), nil
}

func (f *forgetful) Sync() error {
	data, fails := f.loose, f.fs.fail.Load() > 0
	if f.loose = nil; fails {
		f.fs.fail.Add(-1)
		clear(data)
	}
	if _, err := f.File.Write(data); err != nil || fails {
		return errors.Join(err, crash.ErrFault)
	}
	return f.File.Sync()
}

// TestASyncFailsWhileCleaning: after a sync that failed nothing more is written to that segment, also when it was only to make an
// old one needless.
func TestASyncFailsWhileCleaning(t *testing.T) {
	for n := 40; n < 70; n++ { // so that the sync of each other kind fails, too
		synctest.Test(t, func(t *testing.T) {
			inner := crash.New(1)
			fs := &failingSync{FS: inner}
			o, _, err := openOwner(t, fs)
			if err != nil {
				t.Fatal(err)
			}
			id := [32]byte{1}
			for i := range n { // long enough for the oldest segments to be needless
				o.do(Record{id, Whole, fmt.Appendf(nil, "Text %d of many that fill the segments", i)})
			}
			fs.fail.Store(1)
			for i := 0; fs.fail.Load() > 0; i++ { // without a wish for a sync: cleaning wants one, or the end of a segment
				o.mu.Lock()
				o.texts[id] = fmt.Sprintf("Text %d of those that nobody waits for", i)
				_ = o.log.Append([]Record{{id, Whole, []byte(o.texts[id])}}, false, nil)
				o.mu.Unlock()
				synctest.Wait()
			}
			if n%2 == 0 || o.log.Problem() != nil {
				o.doThrough(Record{id, More, []byte(" and more.")})
			} else if err := o.log.Close(); err != nil {
				t.Fatal(err)
			}
			want := o.texts[id]
			again, _, err := openOwner(t, inner.Reboot())
			if err != nil {
				t.Fatalf("after %d records: %v", n, err)
			}
			if again.texts[id] != want {
				t.Errorf("after %d records: %q, acknowledged was %q", n, again.texts[id], want)
			}
			_ = errors.Join(o.log.Close(), again.log.Close())
		})
	}
}

// TestADiskThatFailsForLong does not fill up with segments that hold nothing.
func TestADiskThatFailsForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := crash.New(1)
		fs := &failingSync{FS: inner}
		o, _, err := openOwner(t, fs)
		if err != nil {
			t.Fatal(err)
		}
		o.do(Record{[32]byte{1}, Whole, []byte("before")})
		fs.fail.Store(1 << 30)
		done := make(chan struct{})
		_ = o.log.Append([]Record{{[32]byte{2}, Whole, []byte("meanwhile")}}, true, func() { close(done) })
		<-time.After(100 * retryAfter)
		if names := segmentsOf(inner); len(names) > 3 {
			t.Errorf("%d segments", len(names))
		}
		fs.fail.Store(0)
		<-done
		again, _, err := openOwner(t, inner.Reboot())
		if err != nil || again.texts[[32]byte{1}] != "before" || again.texts[[32]byte{2}] != "meanwhile" {
			t.Errorf("%v, %v", again.texts, err)
		}
		_ = errors.Join(o.log.Close(), again.log.Close())
	})
}
