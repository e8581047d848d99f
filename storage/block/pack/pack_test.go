package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder"
)

func block(i, n int) (Head, []byte) {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(data)
	return Head{chunk.SumRaw(data), uint32(n), uint32(n)}, data
}

type found map[chunk.CID]Loc

func open(t testing.TB, cfg Config) (*Log, Opened, found) {
	t.Helper()
	got := found{}
	l, o, err := Open(cfg, func(f Frame, at Loc) {
		if !f.Bad {
			got[f.ID] = at
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, o, got
}

func config(t testing.TB, size int64) Config {
	t.Helper()
	fs, err := folder.Dir(t.TempDir(), "p")
	if err != nil {
		t.Fatal(err)
	}
	return Config{FS: fs, Dir: "p", Size: size}
}

func fill(t testing.TB, l *Log, n, size int) {
	t.Helper()
	fails := l.Fails()
	for i := range n {
		h, data := block(i, size)
		if _, err := l.Append(h, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Sync(fails); err != nil {
		t.Fatal(err)
	}
}

func readAllOf(t testing.TB, l *Log, got found, n, size int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d frames, want %d", len(got), n)
	}
	for i := range n {
		h, want := block(i, size)
		data, err := l.Read(h, got[h.ID], []byte("x"))
		if err != nil || !bytes.Equal(data[1:], want) {
			t.Fatalf("frame %d: %v", i, err)
		}
		if head, err := l.Head(got[h.ID]); err != nil || head != h {
			t.Fatalf("frame %d: %v, %v", i, head, err)
		}
	}
}

func TestOpenFindsWhatWasAppended(t *testing.T) {
	cfg := config(t, 64<<10)
	l, _, _ := open(t, cfg)
	fill(t, l, 100, 5000)
	bytesBefore := l.Bytes()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, o, got := open(t, cfg)
	if o.Read != 0 || o.Frames != 100 || l.Bytes() != bytesBefore {
		t.Fatalf("%+v, %d bytes, had %d", o, l.Bytes(), bytesBefore)
	}
	readAllOf(t, l, got, 100, 5000)
	infos, _ := cfg.FS.List("p")
	for _, f := range infos { // without its index each pack is read
		if filepath.Ext(f.Name) == indexSuffix {
			if err := cfg.FS.Remove("p/" + f.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	l, o, got = open(t, cfg)
	if o.Read != len(l.Packs()) || o.Frames != 100 || o.Bad+int(o.Torn) != 0 {
		t.Fatalf("%+v", o)
	}
	readAllOf(t, l, got, 100, 5000)
	if _, o, _ = open(t, cfg); o.Read != 0 {
		t.Fatalf("the indexes were not made again: %+v", o)
	}
}

// TestAnotherPacksIndex: an index that a crash brought back from an earlier pack of the same number is not believed.
func TestAnotherPacksIndex(t *testing.T) {
	cfg := config(t, 1<<20)
	l, _, _ := open(t, cfg)
	fill(t, l, 10, 5000)
	l.Close()
	old, err := folder.ReadFile(cfg.FS, l.name(1, indexSuffix), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	cfg2 := config(t, 1<<20)
	l, _, _ = open(t, cfg2)
	want := found{}
	fails := l.Fails()
	for i := range 10 {
		h, data := block(100+i, 5000)
		at, err := l.Append(h, data)
		if err != nil {
			t.Fatal(err)
		}
		want[h.ID] = at
	}
	if err := l.Sync(fails); err != nil {
		t.Fatal(err)
	}
	l.Close()
	f, err := cfg2.FS.Create(l.name(1, indexSuffix))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(old)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	_, o, got := open(t, cfg2)
	if o.Read != 1 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%+v: %d frames", o, len(got))
	}
}

func TestKeepAndRemove(t *testing.T) {
	cfg := config(t, 64<<10)
	l, _, _ := open(t, cfg)
	fill(t, l, 100, 5000)
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	packs := l.Packs()
	frames, err := l.Frames(packs[0].Num)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Keep(packs[0].Num, frames[:1]); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(packs[1].Num); err != nil {
		t.Fatal(err)
	}
	gone, err := l.Frames(packs[2].Num)
	if err != nil {
		t.Fatal(err)
	}
	h, err := l.handles.acquire(packs[2].Num) // somebody reads from it still
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(packs[2].Num); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ReadAt(make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	l.handles.release(h)
	if _, err := l.Read(gone[0].Head, Loc{packs[2].Num, gone[0].Off}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	before := l.Bytes()
	l.Close()
	l, o, got := open(t, cfg)
	if want := 100 - 3*len(frames) + 1; o.Frames != want || len(got) != want || l.Bytes() != before {
		t.Fatalf("%+v, %d bytes; want %d frames, %d bytes", o, l.Bytes(), want, before)
	}
}

func TestALooseLogIsReadAtOnce(t *testing.T) {
	cfg := config(t, 64<<10)
	cfg.Loose = true
	l, _, _ := open(t, cfg)
	for i := range 30 {
		h, data := block(i, 5000)
		at, err := l.Append(h, data)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.Read(h, at, nil); err != nil || !bytes.Equal(got, data) {
			t.Fatal(err)
		}
	}
	full := len(l.Packs())
	_, o, _ := open(t, cfg) // as after a crash: what was not full is dropped
	if want := full * 12; o.Frames != want {
		t.Fatalf("%+v, want %d", o, want)
	}
}

func TestManyAppendAndSync(t *testing.T) {
	cfg := config(t, 64<<10)
	l, _, _ := open(t, cfg)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				fails := l.Fails()
				h, data := block(1000*w+i, 3000)
				at, err := l.Append(h, data)
				if err == nil {
					err = l.Sync(fails)
				}
				if err == nil {
					_, err = l.Read(h, at, nil)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	l.Close()
	if _, o, got := open(t, cfg); len(got) != 160 || o.Read != 0 {
		t.Fatalf("%+v", o)
	}
}

// TestScanPassesDamage: whatever is done to a pack, what was not hit is found.
func TestScanPassesDamage(t *testing.T) {
	var buf []byte
	var heads []Head
	for i := range 5 {
		h, data := block(i, 100*i)
		buf = append(appendHead(buf, h), data...)
		heads = append(heads, h)
	}
	for bit := range 8 * len(buf) {
		hit := bytes.Clone(buf)
		hit[bit/8] ^= 1 << (bit % 8)
		var good []Head
		scan(bytes.NewReader(hit), int64(len(hit)), func(f Frame) {
			if !f.Bad {
				good = append(good, f.Head)
			}
		})
		if len(good) != 4 {
			t.Fatalf("bit %d: %d frames", bit, len(good))
		}
		for _, h := range good {
			if !slices.Contains(heads, h) {
				t.Fatalf("bit %d: a frame that was never written", bit)
			}
		}
	}
	for cut := range len(buf) {
		n := 0
		scan(bytes.NewReader(buf[:cut]), int64(cut), func(f Frame) {
			if n++; f.Bad {
				t.Fatalf("cut at %d: the torn end is told of as damage", cut)
			}
		})
		if n > 4 {
			t.Fatal(n)
		}
	}
}

func FuzzScan(f *testing.F) {
	var buf []byte
	for i := range 3 {
		h, data := block(i, 10*i)
		buf = append(appendHead(buf, h), data...)
	}
	f.Add(buf)
	f.Add(buf[5:])
	f.Add(bytes.Repeat([]byte(magic), 100))
	f.Fuzz(func(t *testing.T, data []byte) {
		end := int64(0)
		scan(bytes.NewReader(data), int64(len(data)), func(f Frame) {
			if !f.valid() || int64(f.Off) < end {
				t.Fatalf("%+v after %d", f, end)
			}
			end = int64(f.Off) + headSize + int64(f.Length)
			if end > int64(len(data)) {
				t.Fatalf("%+v beyond the end", f)
			}
			if !f.Bad && chunk.SumRaw(data[int64(f.Off)+headSize:end]).Sum != f.ID.Sum {
				t.Fatal("other bytes")
			}
		})
	})
}

func FuzzIndex(f *testing.F) {
	h, _ := block(1, 100)
	g, _ := block(2, 50)
	f.Add(encodeIndex(1000, []entry{{h, 0}, {g, 152}}))
	f.Add(encodeIndex(1000, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := decodeIndex(data, 1000)
		if err == nil && !bytes.Equal(encodeIndex(1000, entries), data) {
			t.Fatal("two encodings of one thing")
		}
	})
}
