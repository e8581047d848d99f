package bitfield

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 300).Draw(t, "n")
		b, model := New(n), map[int]bool{}
		if n > 0 {
			for _, i := range rapid.SliceOf(rapid.IntRange(0, n-1)).Draw(t, "ops") {
				if model[i] {
					b.Clear(i)
					delete(model, i)
				} else {
					b.Set(i)
					model[i] = true
				}
			}
			first := rapid.IntRange(0, n-1).Draw(t, "first")
			r := Run{first, rapid.IntRange(0, n-first).Draw(t, "count")}
			b.SetRun(r)
			for i := range r.Count {
				model[r.First+i] = true
			}
		}
		if b.Count() != len(model) {
			t.Fatalf("count %d, want %d", b.Count(), len(model))
		}
		back, err := Parse(b.Bytes(), n)
		if err != nil || !slices.Equal(back.words, b.words) || back.count != b.count {
			t.Fatalf("round trip: %v", err)
		}
		old := New(n)
		for _, r := range b.RunsSince(old, n+1) {
			for i := range r.Count {
				if !model[r.First+i] {
					t.Fatalf("run holds %d", r.First+i)
				}
			}
		}
		if !slices.Equal(old.words, b.words) {
			t.Fatal("runs do not cover the set")
		}
	})
}

func TestParseRefusesSecondEncoding(t *testing.T) {
	for _, c := range []struct {
		data []byte
		n    int
	}{{[]byte{0xff}, 7}, {[]byte{1, 0}, 8}, {nil, 1}, {nil, -1}} {
		if _, err := Parse(c.data, c.n); err == nil {
			t.Errorf("Parse(%x, %d) was accepted", c.data, c.n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{3}, 2)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		if n > 1<<16 {
			return
		}
		if b, err := Parse(data, n); err == nil && !slices.Equal(b.Bytes(), data) {
			t.Fatal("not canonical")
		}
	})
}
