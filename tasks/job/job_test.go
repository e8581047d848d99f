package job

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"pgregory.net/rapid"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/chunk"
)

func testKey(n byte) crypto.PrivKey {
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{n}, ed25519.SeedSize)))
	if err != nil {
		panic(err)
	}
	return key
}

func file(text string) File { return File{Root: chunk.SumRaw([]byte(text)), Size: int64(len(text))} }

// full is a spec with something in every field.
func full() Spec {
	big := File{Root: chunk.SumNode([]byte("big")), Size: 3 << 30, Pieces: []Piece{
		{chunk.SumNode([]byte("1")), 1 << 30}, {chunk.SumNode([]byte("2")), 1 << 30}, {chunk.SumNode([]byte("3")), 1 << 30}}}
	return Spec{
		Pool: ident.PoolID{1, 2}, Created: time.UnixMilli(1_700_000_000_123).UTC(), Nonce: 42, Name: "count words",
		Command: Command{Kind: Wasm, Module: file("module"), Args: []string{"-n", "{}"}, Env: []string{"LANG=C", "EMPTY="}},
		Inputs:  []Input{{Name: "dict/words.txt", File: file("words")}, {Name: "big", File: big}},
		Stdin:   Source{Text: []byte("hello")},
		Split: Split{Kind: Items, Items: []Item{
			{Text: "one", Inputs: []Input{{Name: "a", File: file("a")}}}, {Text: "two"}}},
		Reduce:    &Command{Kind: Proc, Path: "sort", Args: []string{"-u"}},
		Resources: Resources{Cores: 2, Memory: 1 << 30, Wall: time.Minute, Output: 1 << 20},
		Failures:  2, Exclusive: true, AnyExit: true, Needs: []string{"os=linux"}, Priority: -3, Retention: time.Hour,
	}
}

func TestSignedRoundTrip(t *testing.T) {
	s := full()
	j, err := Sign(testKey(1), s)
	if err != nil {
		t.Fatal(err)
	}
	s.Submitter = j.Spec.Submitter
	if !reflect.DeepEqual(j.Spec, s) {
		t.Errorf("came back as\n%+v\nwas\n%+v", j.Spec, s)
	}
	again, err := Decode(j.Raw)
	if err != nil || again.ID != j.ID || !reflect.DeepEqual(again.Spec, j.Spec) {
		t.Errorf("decoded again: %v", err)
	}
	if c := j.ID.CID(); c != chunk.SumRaw(j.Raw) {
		t.Errorf("the block of %s is %s", j.ID, c)
	}
	if id, err := ParseID(j.ID.String()); err != nil || id != j.ID {
		t.Errorf("id: %v", err)
	}
	if j.Spec.Tasks() != 2 || j.Spec.All() != 3 {
		t.Errorf("%d tasks of %d", j.Spec.Tasks(), j.Spec.All())
	}
}

func TestAlteredSpecIsRefused(t *testing.T) {
	j, err := Sign(testKey(1), full())
	if err != nil {
		t.Fatal(err)
	}
	for i := range j.Raw {
		raw := bytes.Clone(j.Raw)
		raw[i] ^= 1
		if got, err := Decode(raw); err == nil {
			t.Fatalf("byte %d altered and accepted: %+v", i, got.Spec)
		}
	}
	if _, err := Decode(make([]byte, SignedMax+1)); err == nil {
		t.Error("a spec over the limit")
	}
	// Another submitter's name under one's own signature.
	body, _ := encode(func() *Spec { s := full(); s.Submitter = j.Spec.Submitter; return &s }().message())
	sig, err := ident.Sign(testKey(2), domain, body)
	if err != nil {
		t.Fatal(err)
	}
	raw := append(append([]byte{10}, protoBytes(body)...), append([]byte{18}, protoBytes(sig)...)...)
	if _, err := Decode(raw); !errors.Is(err, ident.ErrSignature) {
		t.Errorf("a forged submitter: %v", err)
	}
	if _, err := Trust(raw); err != nil {
		t.Errorf("without a look at the signature: %v", err)
	}
}

func protoBytes(b []byte) []byte {
	n := len(b)
	var out []byte
	for n >= 0x80 {
		out = append(out, byte(n)|0x80)
		n >>= 7
	}
	return append(append(out, byte(n)), b...)
}

func TestBadSpecs(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"no pool":           func(s *Spec) { s.Pool = ident.PoolID{} },
		"name":              func(s *Spec) { s.Name = "a\x1b[2J" },
		"priority":          func(s *Spec) { s.Priority = 9 },
		"failures":          func(s *Spec) { s.Failures = FailuresMax + 1 },
		"retention":         func(s *Spec) { s.Retention = RetainMax + 1 },
		"no module":         func(s *Spec) { s.Command.Module = File{} },
		"path with module":  func(s *Spec) { s.Command.Path = "sh" },
		"kind":              func(s *Spec) { s.Command.Kind = 3 },
		"reduce":            func(s *Spec) { s.Reduce = &Command{Kind: Proc} },
		"argument":          func(s *Spec) { s.Command.Args = []string{"a\x00b"} },
		"long argument":     func(s *Spec) { s.Command.Args = []string{strings.Repeat("a", ArgMax+1)} },
		"many arguments":    func(s *Spec) { s.Command.Args = make([]string, ArgsMax+1) },
		"environment":       func(s *Spec) { s.Command.Env = []string{"NOVALUE"} },
		"cores":             func(s *Spec) { s.Resources.Cores = -1 },
		"wall":              func(s *Spec) { s.Resources.Wall = WallMax + 1 },
		"input name":        func(s *Spec) { s.Inputs[0].Name = "../etc" },
		"absolute input":    func(s *Spec) { s.Inputs[0].Name = "/etc" },
		"backslash":         func(s *Spec) { s.Inputs[0].Name = `a\b` },
		"input without":     func(s *Spec) { s.Inputs[0].File = File{} },
		"negative size":     func(s *Spec) { s.Inputs[0].File.Size = -1 },
		"pieces":            func(s *Spec) { s.Inputs[1].File.Pieces = s.Inputs[1].File.Pieces[:2] },
		"stdin":             func(s *Spec) { s.Stdin = Source{Text: []byte("a"), File: file("b")} },
		"long stdin":        func(s *Spec) { s.Stdin.Text = make([]byte, StdinMax+1) },
		"no items":          func(s *Spec) { s.Split.Items = nil },
		"items and count":   func(s *Spec) { s.Split.Count = 1 },
		"split kind":        func(s *Spec) { s.Split.Kind = 9 },
		"no tasks":          func(s *Spec) { s.Split = Split{Kind: Count} },
		"too many tasks":    func(s *Spec) { s.Split = Split{Kind: Count, Count: TasksMax + 1} },
		"list without file": func(s *Spec) { s.Split = Split{Kind: List, Count: 1} },
		"small slices":      func(s *Spec) { s.Split = Split{Kind: Slices, File: file("x"), Slice: 1} },
		"too many slices": func(s *Spec) {
			s.Split = Split{Kind: Slices, File: File{Root: chunk.SumNode(nil), Size: FilesMax}, Slice: SliceMin}
		},
		"one with a file": func(s *Spec) { s.Split = Split{File: file("x")} },
		"need":            func(s *Spec) { s.Needs = []string{strings.Repeat("x", NameMax+1)} },
	} {
		s := full()
		change(&s)
		if _, err := Sign(testKey(1), s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDefaults(t *testing.T) {
	var s Spec
	if l := s.Limits(); l.Cores != CoresDefault || l.Memory != MemoryDefault || l.Wall != WallDefault || l.Output != OutputDefault {
		t.Errorf("%+v", l)
	}
	if s.Attempts() != FailuresDefault || s.Keep() != RetainDefault || s.Tasks() != 1 || s.All() != 1 {
		t.Error("defaults")
	}
	f := full()
	if f.Limits() != f.Resources || f.Attempts() != 2 || f.Keep() != time.Hour {
		t.Error("what is set")
	}
}

// TestKey: who asks, when and how urgently does not change what is computed; anything else does.
func TestKey(t *testing.T) {
	base := full()
	want := base.Key()
	const golden = "5c6d" // the start of it; a change would lose everybody's stored results
	if got := fmt.Sprintf("%x", want[:2]); got != golden {
		t.Errorf("the key is %s…, was %s…", got, golden)
	}
	for name, change := range map[string]func(*Spec){
		"nonce": func(s *Spec) { s.Nonce++ }, "name": func(s *Spec) { s.Name = "x" }, "priority": func(s *Spec) { s.Priority = 1 },
		"created": func(s *Spec) { s.Created = time.UnixMilli(5) }, "memory": func(s *Spec) { s.Resources.Memory++ },
		"exclusive": func(s *Spec) { s.Exclusive = false }, "retention": func(s *Spec) { s.Retention++ },
		"submitter": func(s *Spec) { s.Submitter = "x" }, "pool": func(s *Spec) { s.Pool[0]++ },
	} {
		s := full()
		if change(&s); s.Key() != want {
			t.Errorf("%s changes the key", name)
		}
	}
	seen := map[Key]string{want: "nothing"}
	for name, change := range map[string]func(*Spec){
		"module": func(s *Spec) { s.Command.Module = file("m") }, "args": func(s *Spec) { s.Command.Args = []string{"-n{}"} },
		"env": func(s *Spec) { s.Command.Env = nil }, "inputs": func(s *Spec) { s.Inputs = nil },
		"input name": func(s *Spec) { s.Inputs[0].Name = "x" }, "stdin": func(s *Spec) { s.Stdin = Source{} },
		"items": func(s *Spec) { s.Split.Items[1].Text = "three" }, "reduce": func(s *Spec) { s.Reduce = nil },
		"split": func(s *Spec) { s.Split = Split{Kind: Count, Count: 2} }, "exit": func(s *Spec) { s.AnyExit = false },
		"reduce args": func(s *Spec) { s.Reduce.Args = nil },
	} {
		s := full()
		change(&s)
		if other, ok := seen[s.Key()]; ok {
			t.Errorf("%s and %s give the same key", name, other)
		}
		seen[s.Key()] = name
	}
}

func TestTokens(t *testing.T) {
	a, b, c := Token{1, 5}, Token{1, 12}, Token{2, 1}
	if !a.Less(b) || !b.Less(c) || b.Less(a) || a.Less(a) {
		t.Error("order")
	}
	if !(a.Fence() < b.Fence() && b.Fence() < c.Fence()) || len(a.Fence()) != 32 || c.String() != "2.1" {
		t.Error("text")
	}
	rapid.Check(t, func(t *rapid.T) {
		x := Token{rapid.Uint64().Draw(t, "t"), rapid.Uint64().Draw(t, "s")}
		y := Token{rapid.Uint64().Draw(t, "u"), rapid.Uint64().Draw(t, "v")}
		if x.Less(y) != (x.Fence() < y.Fence()) {
			t.Fatal("the fence orders otherwise")
		}
	})
}

func TestTasks(t *testing.T) {
	s := full()
	task, err := s.Task(0, Item{})
	if err != nil || len(task.Inputs) != 3 || task.Command.Args[1] != "one" || string(task.Stdin.Text) != "hello" {
		t.Errorf("%+v, %v", task, err)
	}
	if s.Command.Args[1] != "{}" {
		t.Error("the spec was changed")
	}
	if task, err = s.Task(2, Item{}); err != nil || !task.Reduce || task.Command.Path != "sort" {
		t.Errorf("reduce: %+v, %v", task, err)
	}
	for _, i := range []int{-1, 3} {
		if _, err := s.Task(i, Item{}); err == nil {
			t.Errorf("task %d", i)
		}
	}
	s.Split = Split{Kind: Slices, File: File{Root: chunk.SumNode(nil), Size: 5 * SliceMin / 2}, Slice: SliceMin}
	if task, err = s.Task(2, Item{}); err != nil || *task.Slice != (Range{2 * SliceMin, SliceMin / 2}) || s.Tasks() != 3 {
		t.Errorf("slice: %+v, %v", task.Slice, err)
	}
	env := Env(ID{1}, &s, 2, Token{3, 4})
	if strings.Join(env[1:], " ") != "SHOAL_TASK=2 SHOAL_TASKS=3 SHOAL_TOKEN=00000000000000030000000000000004" {
		t.Error(env)
	}
}

// TestCutAt: slices that are cut at lines hold every line once, whole, whatever the slice's size.
func TestCutAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n\n")), 0, 300).Draw(t, "text")
		slice := rapid.Int64Range(1, 40).Draw(t, "slice")
		buf := make([]byte, rapid.IntRange(1, 20).Draw(t, "buf"))
		r := bytes.NewReader(text)
		var got []byte
		for x := int64(0); x < int64(len(text)); x += slice {
			first, err := CutAt(r, int64(len(text)), x, buf)
			if err != nil {
				t.Fatal(err)
			}
			end, err := CutAt(r, int64(len(text)), x+slice, buf)
			if err != nil || end < first {
				t.Fatal(first, end, err)
			}
			part := text[first:end]
			if len(part) > 0 && part[len(part)-1] != '\n' && end != int64(len(text)) {
				t.Fatalf("a slice ends within a line: %q", part)
			}
			got = append(got, part...)
		}
		if !bytes.Equal(got, text) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

func TestCutAtLongLine(t *testing.T) {
	size := int64(2*lineMax + 100)
	r := endless{size}
	buf := make([]byte, 64<<10)
	if at, err := CutAt(r, size, 50, buf); err != nil || at != 50 {
		t.Errorf("a line that is longer than the limit is cut at %d, %v", at, err)
	}
	if at, err := CutAt(r, size, size-1000, buf); err != nil || at != size {
		t.Errorf("the last line is cut at %d, %v", at, err)
	}
	if _, err := CutAt(bytes.NewReader(nil), size, 50, buf); err == nil {
		t.Error("a file that is shorter than it says")
	}
}

// endless is a file without line ends.
type endless struct{ size int64 }

func (e endless) ReadAt(p []byte, off int64) (int, error) {
	return int(min(int64(len(p)), max(0, e.size-off))), nil
}

func TestItems(t *testing.T) {
	var items []Item
	for i := range 1000 {
		items = append(items, Item{Text: fmt.Sprint("line ", i), Inputs: []Input{{Name: "in", File: file(fmt.Sprint(i))}}})
	}
	var buf bytes.Buffer
	if err := EncodeItems(&buf, items); err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(buf.Bytes())
	for _, i := range []int{0, 1, 500, 999} {
		if it, err := ItemAt(r, 1000, i); err != nil || !reflect.DeepEqual(it, items[i]) {
			t.Errorf("item %d: %+v, %v", i, it, err)
		}
	}
	for name, f := range map[string]func() error{
		"beyond":      func() error { _, err := ItemAt(r, 1000, 1000); return err },
		"other count": func() error { _, err := ItemAt(r, 999, 0); return err },
		"cut short":   func() error { _, err := ItemAt(bytes.NewReader(buf.Bytes()[:buf.Len()-1]), 1000, 999); return err },
		"empty":       func() error { _, err := ItemAt(bytes.NewReader(nil), 1000, 0); return err },
		"none":        func() error { return EncodeItems(&buf, nil) },
		"bad":         func() error { return EncodeItems(&buf, []Item{{Text: "\xff"}}) },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestResults(t *testing.T) {
	r := Result{
		Exit: -1, Reason: "ran out of memory", Stdout: Stream{Inline: []byte("out"), Cut: true}, Stderr: Stream{File: file("err")},
		Outputs: []Output{{Name: "a/b.png", Mode: 0o644, Inline: []byte("png")}, {File: file("folder")}},
		Usage:   Usage{Wall: time.Second, CPU: 2 * time.Second, Memory: 1 << 20, Read: 1, Written: 2, Fetched: 3},
	}
	raw, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeResult(raw); err != nil || !reflect.DeepEqual(*got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	largest := Result{Stdout: Stream{Inline: make([]byte, InlineMax)}, Reason: strings.Repeat("x", ReasonMax), Exit: math.MinInt32}
	for range OutputsMax {
		largest.Outputs = append(largest.Outputs, Output{Name: strings.Repeat("n", 90), File: file("x")})
	}
	if raw, err := largest.Encode(); err != nil {
		t.Errorf("the largest result: %v (%d bytes)", err, len(raw))
	}
	for name, r := range map[string]Result{
		"inline":   {Stdout: Stream{Inline: make([]byte, InlineMax)}, Stderr: Stream{Inline: []byte("x")}},
		"both":     {Stdout: Stream{Inline: []byte("x"), File: file("y")}},
		"reason":   {Reason: "a\nb"},
		"exit":     {Exit: math.MaxInt32 + 1},
		"outputs":  {Outputs: make([]Output, OutputsMax+1)},
		"name":     {Outputs: []Output{{Name: "../x"}}},
		"mode":     {Outputs: []Output{{Mode: 0o7777}}},
		"negative": {Usage: Usage{Read: -1}},
	} {
		if _, err := r.Encode(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	j, err := Sign(testKey(1), full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(j.Raw)
	f.Add(j.Raw[:50])
	f.Fuzz(func(t *testing.T, raw []byte) {
		j, err := Trust(raw)
		if err != nil {
			return
		}
		if err := j.Spec.Validate(); err != nil {
			t.Errorf("accepted what is not valid: %v", err)
		}
		_ = j.Spec.Key()
		for _, i := range []int{0, j.Spec.All() - 1} {
			if _, err := j.Spec.Task(i, Item{}); err != nil {
				t.Errorf("task %d: %v", i, err)
			}
		}
	})
}

func FuzzDecodeResult(f *testing.F) {
	raw, err := (&Result{Stdout: Stream{Inline: []byte("x")}, Outputs: []Output{{Name: "a", File: file("b")}}}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := DecodeResult(raw)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatalf("accepted what cannot be encoded: %v", err)
		}
		if back, err := DecodeResult(again); err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%+v became %+v, %v", r, back, err)
		}
	})
}

func FuzzItemAt(f *testing.F) {
	var buf bytes.Buffer
	if err := EncodeItems(&buf, []Item{{Text: "a"}, {Text: "b", Inputs: []Input{{Name: "x", File: file("y")}}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes(), 1)
	f.Fuzz(func(t *testing.T, data []byte, i int) {
		if it, err := ItemAt(bytes.NewReader(data), 2, i); err == nil && it.validate() != nil {
			t.Error("accepted what is not valid")
		}
	})
}
