package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	drillPoll = 500 * time.Millisecond
	// drillFalling is when those who drop out have done so.
	drillFalling = time.Second
	// drillHeal bounds how long it may take until all is as before, once members are back.
	drillHeal = 2 * time.Minute
	// Of the files that there were, all are looked up; the first of them, at most so many bytes, are read.
	drillReadMax  = 64 << 20
	drillFilesMax = 200_000
	drillShown    = 5 // findings of a kind that are named
)

// drillReport is what came of a drill. Times are seconds since the first member dropped out.
type drillReport struct {
	Members int           `json:"members"`
	Asked   float64       `json:"asked_percent"`
	For     float64       `json:"for_s"`
	Fell    []drillMember `json:"dropped_out"`
	Noticed float64       `json:"noticed_s"` // this peer knew that all of them are gone; 0: it did not before they were back
	Back    float64       `json:"back_s"`    // all were online again
	Files   struct {
		All       int   `json:"all"`  // that there were before, of which were …
		Live      int   `json:"live"` // … with a copy on a member that was there, while others were gone
		Read      int   `json:"read"` // … read in full meanwhile
		ReadBytes int64 `json:"read_bytes"`
	} `json:"files"`
	Jobs []drillJob `json:"jobs"` // that were not over before
	Safe struct {
		Copied int64   `json:"copied_bytes"` // by repairs, on all members
		Took   float64 `json:"took_s"`       // until all files were as safe as before
	} `json:"repair"`
	Names  float64  `json:"names_equal_s"` // until all members held the same names
	Broken []string `json:"broken"`        // what did not hold
}

type drillMember struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// drillJob is a job that was under way.
type drillJob struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Tasks  int    `json:"tasks"`
	Before int    `json:"done_before"`
	Gone   int    `json:"done_while_gone"` // by the time at which all were back
	After  int    `json:"done_after"`
	State  string `json:"state"`
}

// look notes how things are before.
func (d *drill) look(ctx context.Context) (err error) {
	if d.pool, err = d.c.Pool(ctx); err != nil {
		return err
	}
	if d.space, err = d.c.FileSpace(ctx); err != nil {
		return err
	}
	if d.files, err = d.list(ctx); err != nil {
		return err
	}
	jobs, err := d.c.Jobs(ctx, false)
	if err != nil {
		return err
	}
	d.jobs = slices.DeleteFunc(jobs, func(j client.Job) bool { return j.Over() })
	d.copied = d.repaired(ctx)
	d.out.Members, d.out.Asked, d.out.For = len(d.pool.Members), 100*d.share, d.lasts.Seconds()
	d.out.Files.All, d.out.Broken, d.out.Jobs = len(d.files), []string{}, []drillJob{}
	return nil
}

// list lists all files with how safe they are.
func (d *drill) list(ctx context.Context) (out []client.PoolFile, err error) {
	err = d.c.FileList(ctx, "/", client.ListOptions{Long: true, Recursive: true}, func(f client.PoolFile) error {
		if f.Kind == "file" && len(out) < drillFilesMax {
			out = append(out, f)
		}
		return nil
	})
	return out, err
}

// repaired is how many bytes members have copied to mend others' copies since they started, as far as they can be asked.
func (d *drill) repaired(ctx context.Context) (sum int64) {
	for _, m := range d.pool.Members {
		if s, err := d.c.At(m.ID).FileSpace(ctx); err == nil {
			sum += s.Repair.Bytes
		}
	}
	return sum
}

func (d *drill) since() float64 { return time.Since(d.fell).Seconds() }

func (d *drill) broken(format string, args ...any) {
	d.out.Broken = append(d.out.Broken, fmt.Sprintf(format, args...))
}

// watch looks on until all is as before, or does not get so.
func (d *drill) watch(ctx context.Context) error {
	if err := d.pause(ctx, drillFalling); err != nil {
		return err
	}
	d.a.notef("reading files")
	d.read(ctx)
	gone, err := d.within(ctx, time.Until(d.until), d.allGone)
	if err != nil {
		return err
	}
	if gone {
		d.out.Noticed = d.since()
		d.a.notef("the pool has noticed after %.1f s", d.out.Noticed)
	}
	if err := d.find(ctx); err != nil {
		return err
	}
	back, err := d.within(ctx, time.Until(d.until)+drillHeal, d.allBack)
	if err != nil {
		return err
	}
	if !back {
		d.broken("not all are back %v after their time", drillHeal)
	}
	d.out.Back = d.since()
	d.a.notef("all are back after %.1f s; waiting until names and copies are as before", d.out.Back)
	d.countJobs(ctx, func(j *drillJob, now client.Job) { j.Gone = now.Done })
	return d.heal(ctx)
}

// heal waits until names are equal and files as safe as before, and looks what became of jobs.
func (d *drill) heal(ctx context.Context) error {
	for _, part := range []struct {
		holds func(context.Context) bool
		took  *float64
		text  string
	}{
		{d.sameNames, &d.out.Names, "names differ between members %v after all were back"},
		{d.asSafe, &d.out.Safe.Took, "files are less safe than before %v after all were back"},
	} {
		ok, err := d.within(ctx, drillHeal, part.holds)
		if err != nil {
			return err
		}
		if !ok {
			d.broken(part.text, drillHeal)
		}
		*part.took = d.since()
	}
	d.out.Safe.Copied = max(d.repaired(ctx)-d.copied, 0)
	d.countJobs(ctx, func(j *drillJob, now client.Job) { j.After, j.State = now.Done, now.State })
	for _, j := range d.out.Jobs {
		if j.State != client.JobWaiting && j.State != client.JobRunning && j.State != client.JobDone {
			d.broken("job %s is %s", clean(j.Name), j.State)
		}
	}
	return nil
}

// within polls until something holds; false when it does not in time.
func (d *drill) within(ctx context.Context, wait time.Duration, holds func(context.Context) bool) (bool, error) {
	for end := time.Now().Add(wait); ; {
		if holds(ctx) {
			return true, nil
		}
		if time.Now().After(end) {
			return false, ctx.Err()
		}
		if err := d.pause(ctx, drillPoll); err != nil {
			return false, err
		}
	}
}

// allGone: this peer takes none of those who dropped out to be online.
func (d *drill) allGone(ctx context.Context) bool {
	pool, err := d.c.Pool(ctx)
	return err == nil && !slices.ContainsFunc(pool.Members, func(m client.Member) bool { return m.State == "online" && d.isOut(m.ID) })
}

func (d *drill) isOut(id string) bool {
	return slices.ContainsFunc(d.out.Fell, func(f drillMember) bool { return f.ID == id })
}

// allBack: those who dropped out say that they are back, and this peer takes them to be online.
func (d *drill) allBack(ctx context.Context) bool {
	for _, m := range d.out.Fell {
		one, cancel := context.WithTimeout(ctx, drillAskWait)
		s, err := d.c.At(m.ID).Drill(one)
		cancel()
		if err != nil || !s.Until.IsZero() {
			return false
		}
	}
	pool, err := d.c.Pool(ctx)
	return err == nil && !slices.ContainsFunc(pool.Members, func(m client.Member) bool { return m.State != "online" && d.isOut(m.ID) })
}

// read reads files as long as members are gone, whether or not anybody has noticed that.
func (d *drill) read(ctx context.Context) {
	ctx, cancel := context.WithDeadline(ctx, d.until.Add(-drillFalling))
	defer cancel()
	var bad []string
	for _, f := range d.files {
		if d.out.Files.ReadBytes+f.Size > drillReadMax {
			break
		}
		var n counter
		err := d.c.Cat(ctx, client.CatRequest{Link: f.Path}, &n, nil)
		if ctx.Err() != nil {
			break // they are coming back: what was not read by now does not count
		}
		switch {
		case err != nil:
			bad = append(bad, fmt.Sprintf("%s could not be read: %s", clean(f.Path), clean(err.Error())))
		case int64(n) != f.Size:
			bad = append(bad, fmt.Sprintf("%s had %d bytes and not %d", clean(f.Path), int64(n), f.Size))
		default:
			d.out.Files.Read++
			d.out.Files.ReadBytes += f.Size
		}
	}
	d.badFiles(bad)
}

// find looks up all files that there were, and whether each has a copy to read.
func (d *drill) find(ctx context.Context) error {
	now, err := d.list(ctx)
	if err != nil {
		return err
	}
	is := map[string]client.PoolFile{}
	for _, f := range now {
		is[f.Path] = f
	}
	var bad []string
	for _, f := range d.files {
		switch n, ok := is[f.Path]; {
		case !ok:
			bad = append(bad, clean(f.Path)+" was not there")
		case n.Safety != nil && n.Safety.State != "empty" && n.Safety.Online < 1:
			bad = append(bad, clean(f.Path)+" had no copy that could be read")
		default:
			d.out.Files.Live++
		}
	}
	d.badFiles(bad)
	return nil
}

func (d *drill) badFiles(bad []string) {
	if len(bad) > 0 {
		d.broken("%s: %s", plural(len(bad), "file"), strings.Join(bad[:min(len(bad), drillShown)], "; "))
	}
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

var _ io.Writer = (*counter)(nil)

// sameNames: all members that are online tell of the same names.
func (d *drill) sameNames(ctx context.Context) bool {
	pool, err := d.c.Pool(ctx)
	if err != nil {
		return false
	}
	for _, m := range pool.Members {
		if m.Self || m.State != "online" {
			continue
		}
		if there, err := d.c.At(m.ID).Pool(ctx); err != nil || there.Names.Digest != pool.Names.Digest {
			return false
		}
	}
	return true
}

// asSafe: no more bytes than before are in a class of less safety.
func (d *drill) asSafe(ctx context.Context) bool {
	now, err := d.c.FileSpace(ctx)
	return err == nil && unsafeBytes(now) <= unsafeBytes(d.space) && now.Thin <= d.space.Thin
}

func unsafeBytes(s client.Space) (n int64) {
	for _, c := range s.Classes {
		if c.State != "safe" && c.State != "empty" {
			n += c.Bytes
		}
	}
	return n
}

// countJobs asks for each job that was under way.
func (d *drill) countJobs(ctx context.Context, note func(*drillJob, client.Job)) {
	if len(d.out.Jobs) == 0 {
		for _, j := range d.jobs {
			d.out.Jobs = append(d.out.Jobs, drillJob{ID: j.ID, Name: j.Name, Tasks: j.Tasks, Before: j.Done, State: client.JobUnreachable})
		}
	}
	for i := range d.out.Jobs {
		if now, err := d.c.Job(ctx, d.out.Jobs[i].ID); err == nil {
			note(&d.out.Jobs[i], now)
		}
	}
}

// tell prints the report.
func (d *drill) tell() error {
	if d.a.json {
		if err := d.a.printJSON(d.out); err != nil {
			return err
		}
	} else if err := table(d.a.out, d.rows()); err != nil {
		return err
	}
	if len(d.out.Broken) > 0 {
		return silent{exitFailure} // the report has said it
	}
	return nil
}

func (d *drill) rows() [][]string {
	r := &d.out
	var names []string
	for _, m := range r.Fell {
		names = append(names, m.Name)
	}
	noticed := fmt.Sprintf("after %.1f s", r.Noticed)
	if r.Noticed == 0 {
		noticed = "not before they were back: a silence counts after ten seconds"
	}
	rows := [][]string{
		{"dropped out", fmt.Sprintf("%s: %d of %s", strings.Join(names, ", "), len(r.Fell), plural(r.Members, "member"))},
		{"noticed", noticed},
		{"files", fmt.Sprintf("%d of %d had a copy to read meanwhile; %d were read, %s", r.Files.Live, r.Files.All, r.Files.Read, bytesText(r.Files.ReadBytes))},
		{"back", fmt.Sprintf("after %.1f s", r.Back)},
		{"names", fmt.Sprintf("equal after %.1f s", r.Names)},
		{"copies", fmt.Sprintf("as safe as before after %.1f s; repairs copied %s", r.Safe.Took, bytesText(r.Safe.Copied))},
	}
	for _, j := range r.Jobs {
		rows = append(rows, []string{"job", fmt.Sprintf("%s: %d of %d tasks done before, %d when all were back, %d in the end; %s", j.Name, j.Before, j.Tasks, j.Gone, j.After, j.State)})
	}
	for _, b := range r.Broken {
		rows = append(rows, []string{"BROKEN", b})
	}
	if len(r.Broken) == 0 {
		rows = append(rows, []string{"held", "all of it"})
	}
	return rows
}
