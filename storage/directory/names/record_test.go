package names

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRecordRoundTrip(t *testing.T) {
	who := newAuthor(t, 1)
	rapid.Check(t, func(rt *rapid.T) {
		r := Record{
			Key:  rapid.StringMatching(`[a-zé/]{1,200}`).Draw(rt, "key"),
			Time: HLC(rapid.Uint64().Draw(rt, "time")),
		}
		if r.Deleted = rapid.Bool().Draw(rt, "deleted"); !r.Deleted {
			r.Value = rapid.SliceOfN(rapid.Byte(), 0, 500).Draw(rt, "value")
		}
		in := who.sign(t, r)
		raw := in.Append(nil)
		if len(raw) != in.Size() || len(raw) > RecordMax {
			rt.Fatalf("%d bytes, Size says %d", len(raw), in.Size())
		}
		out, err := Decode(testPool, raw)
		if err != nil {
			rt.Fatal(err)
		}
		if err := out.Verify(testPool); err != nil {
			rt.Fatal(err)
		}
		if out.ID() != in.ID() || out.Key != in.Key || !bytes.Equal(out.Value, in.Value) || out.Author != who.id {
			rt.Fatalf("%+v became %+v", in, out)
		}
		if other, err := Decode(Pool{'o'}, raw); err != nil || other.ID() == in.ID() || !errors.Is(other.Verify(Pool{'o'}), ErrSignature) {
			rt.Fatalf("it passes in another pool: %v", err)
		}
	})
}

func TestEveryBitCounts(t *testing.T) {
	raw := newAuthor(t, 1).sign(t, Record{Key: "key", Value: []byte("value"), Time: 12345}).Append(nil)
	for i := range len(raw) * 8 {
		bad := bytes.Clone(raw)
		bad[i/8] ^= 1 << (i % 8)
		if r, err := Decode(testPool, bad); err == nil && r.Verify(testPool) == nil {
			t.Errorf("bit %d does not count", i)
		}
	}
	for n := range raw {
		if _, err := Decode(testPool, raw[:n]); !errors.Is(err, ErrRecord) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := Decode(testPool, append(raw, 0)); !errors.Is(err, ErrRecord) {
		t.Errorf("with one byte more: %v", err)
	}
}

func TestRecordLimits(t *testing.T) {
	who := newAuthor(t, 1)
	largest := who.sign(t, Record{Key: strings.Repeat("k", KeyMax), Value: make([]byte, ValueMax)})
	if _, err := Decode(testPool, largest.Append(nil)); err != nil || largest.Size() > RecordMax {
		t.Errorf("the largest record: %v", err)
	}
	for name, r := range map[string]Record{
		"no key":                {Author: who.id},
		"long key":              {Author: who.id, Key: strings.Repeat("k", KeyMax+1)},
		"long value":            {Author: who.id, Key: "k", Value: make([]byte, ValueMax+1)},
		"deletion with a value": {Author: who.id, Key: "k", Deleted: true, Value: []byte{1}},
		"no author":             {Key: "k"},
		"other kind of author":  {Key: "k", Author: "\x12\x20" + who.id},
	} {
		if _, err := r.Sign(testPool, who.key); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	who := newAuthor(f, 1)
	f.Add(who.sign(f, Record{Key: "key", Value: []byte("value"), Time: 5}).Append(nil))
	f.Add(who.sign(f, Record{Key: "key", Deleted: true}).Append(nil))
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(testPool, data)
		if err != nil {
			if !errors.Is(err, ErrRecord) {
				t.Fatal(err)
			}
			return
		}
		if again := r.Append(nil); !bytes.Equal(again, data) {
			t.Fatalf("%x is written as %x", data, again)
		}
		_ = r.Verify(testPool)
	})
}
