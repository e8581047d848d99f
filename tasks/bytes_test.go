package tasks

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/keep"
	"github.com/shoal-os/shoal/tasks/market"
)

// put stores a file for a job.
func (b *box) put(data []byte) job.File {
	b.t.Helper()
	f, err := b.Store(b.t.Context(), bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}

// read reads a file of a job.
func (b *box) read(f job.File) []byte {
	b.t.Helper()
	data, err := b.readAll(b.t.Context(), f, 1<<30)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

func text(r TaskResult) string { return string(r.Results[0].Stdout.Inline) }

func TestInputs(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3)
	all := boxes[0].put([]byte("of all"))
	large := boxes[0].put(bytes.Repeat([]byte("large"), 400_000))
	var items []job.Item
	for i := range 5 {
		items = append(items, job.Item{Text: fmt.Sprint(i), Inputs: []job.Input{{Name: "mine/x", File: boxes[0].put(fmt.Appendf(nil, "of %d", i))}}})
	}
	spec := job.Spec{
		Command: command("inputs"), Inputs: []job.Input{{Name: "all", File: all}}, Stdin: job.Source{Text: []byte("short")},
		Split: job.Split{Kind: job.Items, Items: items},
	}
	check := func(spec job.Spec) {
		t.Helper()
		for i, r := range boxes[1].all(boxes[2].submit(spec).ID) {
			if got, want := text(r), fmt.Sprintf("all 6 of all\nmine/x 4 of %d\nshort", i); got != want {
				t.Errorf("%q, should be %q", got, want)
			}
		}
	}
	check(spec)
	var list bytes.Buffer
	if err := job.EncodeItems(&list, items); err != nil {
		t.Fatal(err)
	}
	spec.Split = job.Split{Kind: job.List, Count: 5, File: boxes[0].put(list.Bytes())}
	check(spec)
	spec = job.Spec{Command: command("cat"), Stdin: job.Source{File: large}}
	r := boxes[1].all(boxes[1].submit(spec).ID)[0]
	if out := r.Results[0].Stdout; out.File.Root != large.Root || !bytes.Equal(boxes[2].read(out.File), boxes[0].read(large)) {
		t.Errorf("%+v", out)
	}
	// A list that is none is the job's own fault.
	spec = job.Spec{Command: command("inputs"), Split: job.Split{Kind: job.List, Count: 2, File: all}, Failures: 1}
	if _, err := boxes[0].Submit(t.Context(), spec, SubmitOptions{}); err == nil {
		t.Error("a list that is none was submitted")
	}
}

func TestSlices(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3)
	var data bytes.Buffer
	lines := 0
	for data.Len() < 3<<20 {
		fmt.Fprintf(&data, "line %d %s\n", lines, strings.Repeat("x", lines%200))
		lines++
	}
	f := boxes[0].put(data.Bytes())
	spec := job.Spec{
		Command: command("cat"), Split: job.Split{Kind: job.Slices, File: f, Slice: 100_000, Lines: true},
		Reduce: &job.Command{Kind: job.Proc, Path: "fake", Args: []string{"cat"}},
	}
	results := boxes[1].all(boxes[2].submit(spec).ID)
	if len(results) != spec.Tasks()+1 {
		t.Fatalf("%d results", len(results))
	}
	for _, r := range results[:spec.Tasks()] {
		part := boxes[0].read(r.Results[0].Stdout.File)
		if len(part) == 0 || part[len(part)-1] != '\n' || !bytes.HasPrefix(part, []byte("line ")) {
			t.Errorf("slice %d is %.20q … %q", r.Task, part, part[max(0, len(part)-5):])
		}
	}
	if out := boxes[0].read(results[spec.Tasks()].Results[0].Stdout.File); !bytes.Equal(out, data.Bytes()) {
		t.Errorf("all slices together are %d bytes of %d", len(out), data.Len())
	}
}

func TestReduce(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 2)
	spec := count(3, "files", "1")
	spec.Reduce = &job.Command{Kind: job.Proc, Path: "fake", Args: []string{"inputs"}}
	results := boxes[0].all(boxes[1].submit(spec).ID)
	want := ""
	for i := range 3 {
		want += fmt.Sprintf("%d/dir/file0 16 file 0 of task %d\n", i, i)
	}
	if got := text(results[3]); got != want {
		t.Errorf("%q, should be %q", got, want)
	}
	// With a task that failed there is nothing to reduce.
	spec = count(2, "fail")
	spec.Reduce = &job.Command{Kind: job.Proc, Path: "fake", Args: []string{"inputs"}}
	if results = boxes[0].all(boxes[1].submit(spec).ID); results[2].State != market.Skipped {
		t.Errorf("%+v", results[2])
	}
}

func TestOutputs(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3)
	for _, n := range []int{1, 8, 9, 300} {
		r := boxes[0].all(boxes[0].submit(job.Spec{Command: command("files", fmt.Sprint(n))}).ID)[0]
		out, err := boxes[2].Outputs(t.Context(), r.Results[0])
		if err != nil || len(out) != n {
			t.Fatalf("%d outputs of %d, %v", len(out), n, err)
		}
		for _, o := range out {
			data := o.Inline
			if o.File.Defined() {
				data = boxes[1].read(o.File)
			}
			var i int
			if _, err := fmt.Sscanf(o.Name, "dir/file%d", &i); err != nil || string(data) != fmt.Sprintf("file %d of task 0", i) || o.Mode != 0o640 {
				t.Errorf("%s %o: %q", o.Name, o.Mode, data)
			}
		}
	}
}

// TestCollectionSparesJobs: what a job needs outlives a collection on every peer, and goes when the job does.
func TestCollectionSparesJobs(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3)
	in := bytes.Repeat([]byte("input "), 100_000)
	spec := job.Spec{Command: command("cat"), Stdin: job.Source{File: boxes[0].put(in)}, Split: job.Split{Kind: job.Count, Count: 300}}
	spec.Command.Args = []string{"big", "8192"}
	s := boxes[0].submit(spec)
	results := boxes[1].all(s.ID)
	checkOnce(t, results, 300)
	wait(t, "all is listed", func() bool {
		for _, b := range boxes {
			for _, r := range results {
				for _, p := range r.Results[0].Stdout.File.All() {
					if !b.keeper.Lists(p.ID) {
						return false
					}
				}
			}
			for _, s := range b.allSeats() {
				for _, page := range s.ledger.Pages() {
					if !b.keeper.Lists(page) {
						return false
					}
				}
			}
		}
		return true
	})
	for _, b := range boxes {
		if _, err := b.repair.CollectNow(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range boxes[2].all(s.ID) {
		if got := boxes[2].read(r.Results[0].Stdout.File); len(got) != 8192 {
			t.Fatalf("task %d has %d bytes", r.Task, len(got))
		}
	}
	if got := boxes[2].read(spec.Stdin.File); !bytes.Equal(got, in) {
		t.Error("the input is gone")
	}
	n := 0
	for range boxes[1].names.Scan(keep.Of(s.ID)) {
		n++
	}
	if n == 0 || n > 20 {
		t.Errorf("%d records for 302 pieces", n)
	}
}

func TestTheSameAgain(t *testing.T) {
	t.Parallel()
	boxes := newPool(t, 3)
	spec := count(3, "task")
	first := boxes[0].submit(spec)
	checkOnce(t, boxes[0].all(first.ID), 3)
	// At once, though the job's card does not say yet that it is done.
	if s, err := boxes[0].Submit(t.Context(), spec, SubmitOptions{}); err != nil || !s.Cached || s.ID != first.ID {
		t.Errorf("%+v, %v", s, err)
	}
	wait(t, "another peer knows what is stored", func() bool {
		_, ok := boxes[2].cached(t.Context(), spec.Key())
		return ok
	})
	if s, err := boxes[2].Submit(t.Context(), spec, SubmitOptions{}); err != nil || !s.Cached || s.ID != first.ID {
		t.Errorf("%+v, %v", s, err)
	}
	fresh, err := boxes[2].Submit(t.Context(), spec, SubmitOptions{Fresh: true})
	if err != nil || fresh.Cached || fresh.ID == first.ID {
		t.Errorf("%+v, %v", fresh, err)
	}
	other := count(4, "task")
	if s, err := boxes[2].Submit(t.Context(), other, SubmitOptions{}); err != nil || s.Cached {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	boxes, runners := withGates(t, 3)
	s := boxes[0].submit(job.Spec{Command: command("gate")})
	wait(t, "it runs", func() bool { return runners[0].running()+runners[1].running()+runners[2].running() > 0 })
	for _, b := range boxes { // from any peer, and not to the end
		wait(t, "what it wrote so far is told", func() bool {
			var out bytes.Buffer
			return b.Logs(t.Context(), s.ID, 0, false, LogSink{Stdout: &out}) == nil && out.String() == "before "
		})
	}
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := boxes[2].Logs(t.Context(), s.ID, 0, true, LogSink{Stdout: w})
		_ = w.CloseWithError(io.EOF)
		ended <- err
	}()
	buf := make([]byte, 7)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "before " {
		t.Fatalf("%q, %v", buf, err)
	}
	// Its worker is taken away; another attempt writes the same, which is not told twice.
	info, err := boxes[0].Job(t.Context(), s.ID)
	if err != nil || len(info.Leases) != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	find(boxes, info.Leases[0].Worker).Mine(true)
	for _, r := range runners {
		r.open()
	}
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != "after\n" {
		t.Errorf("%q, %v", rest, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFollower(t *testing.T) {
	var out bytes.Buffer
	var notes []string
	f := newFollower(LogSink{Stdout: &out, Note: func(s string) { notes = append(notes, s) }})
	say := func(parts ...string) error {
		f.begin()
		for _, p := range parts {
			if err := f.write(0, []byte(p)); err != nil {
				return err
			}
		}
		return nil
	}
	if say("one ", "two") != nil || say("on", "e t", "wo", " three") != nil || out.String() != "one two three" || len(notes) > 0 {
		t.Errorf("%q %q", out.String(), notes)
	}
	if err := say("one tvo three four"); err != errDiffers || len(notes) != 1 {
		t.Errorf("%v %q", err, notes)
	}
	out.Reset()
	if say("one tvo three four") != nil || out.String() != "one tvo three four" {
		t.Errorf("%q %q", out.String(), notes)
	}
	if say("one") != nil || f.finish() != nil || len(notes) != 2 {
		t.Errorf("%q", notes)
	}
}
