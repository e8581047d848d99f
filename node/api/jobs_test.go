package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

// fakeJobs answers with what it was asked.
type fakeJobs struct {
	Tasker
	submitted client.JobRequest
}

var errNoJob = client.Errorf(client.KindNotFound, "see `shoal ps`", "there is no such job")

func (f *fakeJobs) JobSubmit(_ context.Context, req client.JobRequest, progress func(client.Progress)) (client.Submitted, error) {
	progress(client.Progress{Phase: "storing", Done: 1})
	f.submitted = req
	if req.Program.Path == "refuse" {
		return client.Submitted{}, client.Errorf(client.KindRefused, "", "refused")
	}
	return client.Submitted{ID: "j", Tasks: 3, Stewards: []string{"ada"}, Spare: 1}, nil
}

func (*fakeJobs) JobStore(_ context.Context, name string, r io.Reader) (client.JobFile, error) {
	n, err := io.Copy(io.Discard, r)
	if name == "full" {
		return client.JobFile{}, client.Errorf(client.KindNoSpace, "", "full")
	}
	return client.JobFile{Root: name, Size: n, Pieces: []client.JobPiece{{ID: "p", Size: n}}}, err
}

func (*fakeJobs) Jobs(_ context.Context, all bool) ([]client.Job, error) {
	jobs := []client.Job{{ID: "j", Created: time.Unix(1, 0), Stewards: []client.Steward{}}}
	if all {
		jobs = append(jobs, jobs[0])
	}
	return jobs, nil
}

func (*fakeJobs) Job(_ context.Context, job string) (client.Job, error) {
	if job == "none" {
		return client.Job{}, errNoJob
	}
	return client.Job{ID: job, State: client.JobRunning}, nil
}

func (*fakeJobs) JobWatch(_ context.Context, job string, each func(client.JobEvent) error) (client.Job, error) {
	if job == "none" {
		return client.Job{}, errNoJob
	}
	for i := range 3 {
		if err := each(client.JobEvent{Closed: []client.TaskClosed{{Task: i, State: client.TaskDone}}}); err != nil {
			return client.Job{}, err
		}
	}
	return client.Job{ID: job, State: client.JobDone}, nil
}

func (*fakeJobs) JobKill(_ context.Context, req client.JobRequestByID) (client.Job, error) {
	return client.Job{ID: req.Job, State: client.JobCanceled, Canceled: req.Why}, nil
}

func (*fakeJobs) JobWhy(_ context.Context, job string, task int) (client.JobWhy, error) {
	return client.JobWhy{Job: job, Task: task, Reasons: []client.PeerReason{{Peer: "bob", Reason: "it sleeps"}}}, nil
}

func (*fakeJobs) JobResults(_ context.Context, job string, first, count int) iter.Seq2[client.TaskResult, error] {
	return func(yield func(client.TaskResult, error) bool) {
		if job == "none" {
			yield(client.TaskResult{}, errNoJob)
			return
		}
		for i := range count {
			r := client.TaskResult{Task: first + i, Stdout: client.JobStream{Size: 3, Inline: []byte("\x00\xff\n")}}
			if !yield(r, nil) {
				return
			}
		}
		if job == "broken" {
			yield(client.TaskResult{}, errNoJob)
		}
	}
}

func (*fakeJobs) JobOutput(_ context.Context, job string, task int, part, name string, begin func(int64) io.Writer) error {
	if job == "none" {
		return errNoJob
	}
	w := begin(10)
	if _, err := io.WriteString(w, part+name); err != nil {
		return err
	}
	if job == "broken" {
		return errNoJob
	}
	return nil
}

func (*fakeJobs) JobLogs(_ context.Context, job string, task int, follow bool, each func(client.JobOutputText) error) error {
	for _, s := range []string{"stdout", "stderr"} {
		if err := each(client.JobOutputText{Stream: s, Data: []byte(s)}); err != nil {
			return err
		}
	}
	if job == "none" {
		return errNoJob
	}
	return nil
}

func (*fakeJobs) Worker(context.Context) (client.Worker, error) {
	return client.Worker{Labels: []string{"os=linux"}, Tasks: []client.JobLease{}}, nil
}

func (*fakeJobs) Mine(_ context.Context, on bool) (client.Worker, error) {
	return client.Worker{Mine: on, Labels: []string{}, Tasks: []client.JobLease{}}, nil
}

func TestJobSubmission(t *testing.T) {
	f := &fake{}
	_, c := serve(t, f, NetworkUnix)
	seen := 0
	many := make([]string, 20_000) // far more than other requests may hold
	for i := range many {
		many[i] = strings.Repeat("x", 100)
	}
	got, err := c.JobSubmit(t.Context(), client.JobRequest{
		Program: client.JobProgram{Kind: "proc", Path: "true", Args: []string{"{}"}}, Split: &client.JobSplit{Items: many},
		Stdin: &client.JobSource{Text: []byte{0, 255}}, AnyExit: true,
	}, func(client.Progress) { seen++ })
	if err != nil || got.Spare != 1 || got.Tasks != 3 || seen == 0 {
		t.Fatalf("%+v, %d, %v", got, seen, err)
	}
	if s := f.submitted; len(s.Split.Items) != len(many) || !bytes.Equal(s.Stdin.Text, []byte{0, 255}) || !s.AnyExit || s.Program.Path != "true" {
		t.Errorf("%d items, %+v", len(s.Split.Items), s.Program)
	}
	if _, err := c.JobSubmit(t.Context(), client.JobRequest{Program: client.JobProgram{Kind: "proc", Path: "refuse"}}, nil); client.KindOf(err) != client.KindRefused {
		t.Error(err)
	}
	if _, err := c.JobSubmit(t.Context(), client.JobRequest{Program: client.JobProgram{Kind: "abacus"}}, nil); client.KindOf(err) != client.KindInvalid {
		t.Error(err)
	}
	stored, err := c.JobStore(t.Context(), "a b", strings.NewReader(strings.Repeat("y", 1<<20)))
	if err != nil || stored.Root != "a b" || stored.Size != 1<<20 || len(stored.Pieces) != 1 {
		t.Errorf("%+v, %v", stored, err)
	}
	if _, err := c.JobStore(t.Context(), "full", strings.NewReader("y")); client.KindOf(err) != client.KindNoSpace {
		t.Error(err)
	}
}

func TestJobQuestions(t *testing.T) {
	_, c := serve(t, &fake{}, NetworkUnix)
	ctx := t.Context()
	if jobs, err := c.Jobs(ctx, false); err != nil || len(jobs) != 1 {
		t.Errorf("%v, %v", jobs, err)
	}
	if jobs, err := c.Jobs(ctx, true); err != nil || len(jobs) != 2 {
		t.Errorf("%v, %v", jobs, err)
	}
	if j, err := c.Job(ctx, "a&b c"); err != nil || j.ID != "a&b c" || j.Over() {
		t.Errorf("%v, %v", j, err)
	}
	var e *client.Error
	if _, err := c.Job(ctx, "none"); !errors.As(err, &e) || e.Kind != client.KindNotFound || e.Hint == "" {
		t.Error(err)
	}
	if j, err := c.JobKill(ctx, client.JobRequestByID{Job: "j", Why: "enough"}); err != nil || j.Canceled != "enough" || !j.Over() {
		t.Errorf("%v, %v", j, err)
	}
	if w, err := c.JobWhy(ctx, "j", 7); err != nil || w.Task != 7 || w.Reasons[0].Peer != "bob" {
		t.Errorf("%v, %v", w, err)
	}
	for _, on := range []bool{true, false} {
		if w, err := c.Mine(ctx, on); err != nil || w.Mine != on {
			t.Errorf("%v, %v", w, err)
		}
	}
	if w, err := c.Worker(ctx); err != nil || len(w.Labels) != 1 {
		t.Errorf("%v, %v", w, err)
	}
}

func TestJobFollowing(t *testing.T) {
	_, c := serve(t, &fake{}, NetworkUnix)
	var closed []int
	j, err := c.JobWatch(t.Context(), "j", func(e client.JobEvent) error { closed = append(closed, e.Closed[0].Task); return nil })
	if err != nil || j.State != client.JobDone || !slices.Equal(closed, []int{0, 1, 2}) {
		t.Errorf("%v, %v, %v", j, closed, err)
	}
	enough := errors.New("enough")
	if _, err := c.JobWatch(t.Context(), "j", func(client.JobEvent) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
	if _, err := c.JobWatch(t.Context(), "none", func(client.JobEvent) error { return nil }); client.KindOf(err) != client.KindNotFound {
		t.Error(err)
	}
	var seen []string
	hear := func(o client.JobOutputText) error { seen = append(seen, o.Stream+" "+string(o.Data)); return nil }
	if err := c.JobLogs(t.Context(), "j", 0, true, hear); err != nil || !slices.Equal(seen, []string{"stdout stdout", "stderr stderr"}) {
		t.Errorf("%q, %v", seen, err)
	}
	if err := c.JobLogs(t.Context(), "none", 0, true, hear); client.KindOf(err) != client.KindNotFound {
		t.Error(err)
	}
}

func TestJobResults(t *testing.T) {
	_, c := serve(t, &fake{}, NetworkUnix)
	read := func(job string) (n int, err error) {
		err = c.JobResults(t.Context(), job, 5, 1000, func(r client.TaskResult) error {
			if r.Task != 5+n || string(r.Stdout.Inline) != "\x00\xff\n" {
				t.Errorf("%+v", r)
			}
			n++
			return nil
		})
		return n, err
	}
	if n, err := read("j"); err != nil || n != 1000 {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := read("broken"); client.KindOf(err) != client.KindNotFound || n != 1000 {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := read("none"); client.KindOf(err) != client.KindNotFound || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	var size int64
	var out bytes.Buffer
	if err := c.JobOutput(t.Context(), "j", 1, client.OutputFile, "a/b", &out, func(n int64) { size = n }); err != nil || out.String() != "filea/b" || size != 10 {
		t.Errorf("%q, %d, %v", &out, size, err)
	}
	out.Reset()
	if err := c.JobOutput(t.Context(), "broken", 1, client.OutputStdout, "", &out, nil); client.KindOf(err) != client.KindNotFound || out.String() != "stdout" {
		t.Errorf("%q, %v", &out, err)
	}
}
