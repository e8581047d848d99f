package piece

import (
	"bytes"
	"testing"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder/crash"
)

// FuzzMarks reads a file of marks that somebody wrote: whatever it holds, what comes of it can be written and read again.
func FuzzMarks(f *testing.F) {
	id := chunk.SumRaw([]byte("x"))
	f.Add(append(asideLine(id, aside{trimmed, 1}), pinLine("pin", id, "a \"name\"\n")...))
	f.Add(append(line("back %s", id), pinLine("unpin", id, "a")...))
	f.Add([]byte("aside \n\n 00000000\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for l := range bytes.Lines(data) {
			parseLine(bytes.TrimSuffix(l, []byte("\n")))
		}
		s := marksOf(t, data)
		again := marksOf(t, s.allMarks())
		if len(again.aside) != len(s.aside) || len(again.pins) != len(s.pins) {
			t.Fatalf("%v %v, then %v %v", s.aside, s.pins, again.aside, again.pins)
		}
		for id, a := range s.aside {
			if again.aside[id] != a {
				t.Fatalf("%v, then %v", a, again.aside[id])
			}
		}
	})
}

func marksOf(t *testing.T, data []byte) *Store {
	t.Helper()
	fs := crash.New(1)
	f, err := fs.Create(marksDir + "/0000000000000001")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	s := &Store{fs: fs, aside: map[chunk.CID]aside{}, pins: map[chunk.CID][]string{}}
	if _, _, err := s.readMarks(); err != nil {
		t.Fatal(err)
	}
	return s
}

// FuzzChanges reads a file of changes: what is accepted is what encode makes of it.
func FuzzChanges(f *testing.F) {
	c := changes{epoch: [16]byte{1}, next: 7, last: []Change{{Piece{chunk.SumRaw([]byte("x")), 1}, true}, {Piece{chunk.SumNode([]byte("y")), 1 << 20}, false}}}
	f.Add(c.encode(3))
	f.Add((&changes{}).encode(3))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c changes
		if c.decode(data, 3) && !bytes.Equal(c.encode(3), data) {
			t.Fatal("two encodings of one thing")
		}
	})
}
