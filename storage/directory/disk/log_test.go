package disk_test

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shoal-os/shoal/storage/directory/disk"
	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/folder/crash"
)

// store is a small owner of a log: a map whose entries are "key=value".
type store struct {
	log  *disk.Log
	data map[string]string
}

func open(fs folder.FS) (*store, disk.Opened, error) {
	s := &store{data: map[string]string{}}
	log, opened, err := disk.Open(fs, [32]byte{1}, func(e disk.Entry) error {
		if e.Kind != 1 || len(e.Payload) < 4 {
			return fmt.Errorf("entry %d %q", e.Kind, e.Payload)
		}
		s.data[string(e.Payload[:4])] = string(e.Payload[4:])
		return nil
	})
	s.log = log
	return s, opened, err
}

func mustOpen(t *testing.T, fs folder.FS) (*store, disk.Opened) {
	t.Helper()
	s, opened, err := open(fs)
	if err != nil {
		t.Fatal(err)
	}
	return s, opened
}

func (s *store) put(key, value string) error {
	err := s.log.Append([]disk.Entry{{Kind: 1, Payload: []byte(key + value)}}, true)
	if err == nil {
		s.data[key] = value
	}
	return err
}

func (s *store) all() iter.Seq[disk.Entry] {
	return func(yield func(disk.Entry) bool) {
		for _, k := range slices.Sorted(maps.Keys(s.data)) {
			if !yield(disk.Entry{Kind: 1, Payload: []byte(k + s.data[k])}) {
				return
			}
		}
	}
}

func (s *store) compact() error {
	gen, err := s.log.Rotate()
	if err != nil {
		return err
	}
	return s.log.WriteSnapshot(gen, s.all())
}

// script writes, compacts, writes, and stops at the first error. acked is what was acknowledged, tried the one write
// that was not.
func script(fs folder.FS) (acked map[string]string, tried string) {
	acked = map[string]string{}
	s, _, err := open(fs)
	if err != nil {
		return acked, ""
	}
	for i := range 12 {
		key, value := fmt.Sprintf("k%03d", i%5), fmt.Sprintf("value %d", i)
		if err := s.put(key, value); err != nil {
			return acked, key
		}
		acked[key] = value
		if i%4 == 3 && s.compact() != nil {
			return acked, ""
		}
	}
	_ = s.log.Close()
	return acked, ""
}

func TestCrashAtEveryStep(t *testing.T) {
	crashes := 0
	for n := 1; ; n++ {
		alive := false
		for seed := range uint64(40) {
			fs := crash.New(seed)
			fs.CrashAt(n)
			acked, tried := script(fs)
			alive = !fs.Dead()
			after := fs.Reboot()
			s, opened := mustOpen(t, after)
			checkAcked(t, s, acked, tried, n, seed)
			if len(opened.Damaged) > 0 {
				t.Fatalf("step %d, seed %d: damage %v", n, seed, opened.Damaged)
			}
			// It works on, and the next opening agrees.
			if err := errors.Join(s.put("last", "x"), s.compact(), s.put("more", "y"), s.log.Close()); err != nil {
				t.Fatalf("step %d, seed %d: %v", n, seed, err)
			}
			if again, _ := mustOpen(t, after.Reboot()); !maps.Equal(again.data, s.data) {
				t.Fatalf("step %d, seed %d: %v, then %v", n, seed, s.data, again.data)
			}
		}
		if alive {
			break
		}
		crashes++
	}
	if crashes < 40 {
		t.Errorf("only %d steps", crashes)
	}
	t.Logf("%d steps", crashes)
}

func checkAcked(t *testing.T, s *store, acked map[string]string, tried string, n int, seed uint64) {
	t.Helper()
	for k, v := range acked {
		if s.data[k] != v && k != tried {
			t.Fatalf("step %d, seed %d: %s is %q, acknowledged was %q", n, seed, k, s.data[k], v)
		}
	}
	for k := range s.data {
		if _, ok := acked[k]; !ok && k != tried {
			t.Fatalf("step %d, seed %d: %s was never written", n, seed, k)
		}
	}
}

func TestFaultAtEveryStep(t *testing.T) {
	for n := 1; ; n++ {
		fs := crash.New(uint64(n))
		s, _ := mustOpen(t, fs)
		fs.FailAt(n)
		want, failed := map[string]string{}, 0
		for i := range 10 {
			key, value := fmt.Sprintf("k%03d", i), fmt.Sprint(i)
			if err := s.put(key, value); errors.Is(err, crash.ErrFault) {
				failed++
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			want[key] = value
			if i%3 == 2 && s.compact() != nil {
				failed++
			}
		}
		if failed > 1 {
			t.Fatalf("step %d: one fault made %d calls fail", n, failed)
		}
		again, _ := mustOpen(t, fs.Reboot())
		for k, v := range want {
			if again.data[k] != v {
				t.Fatalf("step %d: %s is %q, acknowledged was %q", n, k, again.data[k], v)
			}
		}
		if failed == 0 {
			return
		}
	}
}

func TestDamagedSnapshotIsKeptAndTold(t *testing.T) {
	fs := crash.New(1)
	s, _ := mustOpen(t, fs)
	for i := range 100 {
		if err := s.put(fmt.Sprintf("k%03d", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.compact(), s.put("late", "v"), s.log.Close()); err != nil {
		t.Fatal(err)
	}
	name := fs.Names()[0]
	fs.Flip(name, 4*fs.Size(name)) // in its middle
	s, opened := mustOpen(t, fs)
	if len(opened.Damaged) != 1 || s.data["k000"] != "v" || s.data["late"] != "v" || len(s.data) == 101 {
		t.Errorf("%+v, %d entries", opened, len(s.data))
	}
	if !s.log.Wasteful(1 << 30) {
		t.Error("no new snapshot is due")
	}
	left := len(s.data)
	if err := s.compact(); err != nil {
		t.Fatal(err)
	}
	if s, opened := mustOpen(t, fs); len(opened.Damaged) != 0 || len(s.data) != left {
		t.Errorf("%+v, %d entries, %d before", opened, len(s.data), left)
	}
}

func TestForeignFiles(t *testing.T) {
	dir, err := folder.Dir(filepath.Join(t.TempDir(), "directory"))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := mustOpen(t, dir)
	if err := errors.Join(s.put("mine", "1"), s.log.Close()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := disk.Open(dir, [32]byte{2}, func(disk.Entry) error { return nil }); !errors.Is(err, disk.ErrOther) {
		t.Errorf("another pool's: %v", err)
	}
	if s, _ := mustOpen(t, dir); s.data["mine"] != "1" {
		t.Errorf("%v", s.data)
	}
}

func TestCostsWhatItHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "directory")
	dir, err := folder.Dir(path)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := mustOpen(t, dir)
	value := string(make([]byte, 10_000))
	for i := range 1000 { // ten megabytes of history of ten keys
		e := disk.Entry{Kind: 1, Payload: []byte(fmt.Sprintf("k%03d", i%10) + value)}
		if err := s.log.Append([]disk.Entry{e}, false); err != nil {
			t.Fatal(err)
		}
		s.data[string(e.Payload[:4])] = value
		if s.log.Wasteful(100_000) {
			if err := s.compact(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var size int64
	entries, _ := os.ReadDir(path)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 1_400_000 {
		t.Errorf("%d bytes for 100,000", size)
	}
	if s, _ := mustOpen(t, dir); len(s.data) != 10 {
		t.Errorf("%d keys", len(s.data))
	}
}

func FuzzOpen(f *testing.F) {
	fs := crash.New(1)
	s, _, err := open(fs)
	if err == nil {
		err = errors.Join(s.put("abcd", "1"), s.put("efgh", "2"))
	}
	if err != nil {
		f.Fatal(err)
	}
	raw, err := folder.ReadFile(fs, "0000000000000001.log", 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, true)
	f.Add(raw, false)
	f.Add(raw[:len(raw)-3], true)
	f.Fuzz(func(t *testing.T, raw []byte, log bool) {
		fs := crash.New(1)
		name := "0000000000000001.snap"
		if log {
			name = "0000000000000001.log"
		}
		w, _ := fs.Create(name)
		_, _ = w.Write(raw)
		l, _, err := disk.Open(fs, [32]byte{1}, func(disk.Entry) error { return nil })
		if err == nil {
			err = errors.Join(l.Append([]disk.Entry{{Kind: 1, Payload: []byte("x")}}, true), l.Close())
		}
		if err != nil && !errors.Is(err, disk.ErrOther) {
			t.Fatal(err)
		}
	})
}
