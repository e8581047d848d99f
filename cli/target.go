package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/shoal-os/shoal/node/api/client"
)

// target is where what tasks left goes: a folder of this machine, one of the pool, or, when it is nil, nowhere.
type target struct {
	pool    string
	local   string
	streams bool // standard outputs too

	place client.Placing
	root  *os.Root
	files int
	bytes int64
}

// target reads -o. Nothing is made before there is something to put there.
func (a *app) target(ctx context.Context, c *client.Client, text string) (*target, error) {
	if text == "" {
		return nil, nil
	}
	if isPoolPath(text) {
		f, err := c.FileStat(ctx, text)
		if err == nil && f.Kind != "folder" {
			return nil, client.Errorf(client.KindExists, "choose another path", "%s is a file of the pool", clean(text))
		}
		return &target{pool: text}, nil
	}
	local := strings.TrimPrefix(text, localPrefix)
	if info, err := os.Stat(local); err == nil && !info.IsDir() {
		return nil, client.Errorf(client.KindExists, "choose another path", "%s is a file", clean(local))
	}
	return &target{local: local}, nil
}

// save puts there what a task left; task -1 is the reduce, or all.
func (d *target) save(ctx context.Context, a *app, c *client.Client, job string, task int) error {
	if d == nil {
		return nil
	}
	if d.pool != "" {
		v := a.newView(path.Base(d.pool))
		t, err := c.JobSave(ctx, client.JobSaveRequest{Job: job, Task: task, Path: d.pool, Streams: d.streams}, v.update)
		v.end()
		d.files, d.bytes = t.Files+t.Same, t.Size
		return err
	}
	first, count := max(task, 0), 1
	if task < 0 {
		count = 0
	}
	return c.JobResults(ctx, job, first, count, func(r client.TaskResult) error { return d.add(ctx, c, job, r) })
}

// add puts what one task left into the local folder. Tasks come in order.
func (d *target) add(ctx context.Context, c *client.Client, job string, r client.TaskResult) error {
	if d == nil || d.local == "" || r.State != client.TaskDone {
		return nil
	}
	d.place.Streams = d.streams
	for _, p := range d.place.Place(r) {
		if err := d.write(ctx, c, job, p); err != nil {
			return err
		}
	}
	return nil
}

// partSuffix ends the names of files that are not whole yet.
const partSuffix = ".shoal-part"

// write makes one file below the folder, which has its name once it is whole. The name is another peer's, so nothing leads out of the
// folder.
func (d *target) write(ctx context.Context, c *client.Client, job string, p client.Placed) (err error) {
	if err := d.open(); err != nil {
		return err
	}
	name := filepath.FromSlash(p.Path)
	if !filepath.IsLocal(name) {
		return client.Errorf(client.KindCorrupt, "", "task %d left a file of the name %q, which leads elsewhere", p.Task, clean(p.Path))
	}
	if err := d.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if p.Mode&0o111 != 0 {
		mode = 0o755
	}
	part := name + partSuffix
	f, err := d.root.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err == nil {
			err = d.root.Rename(part, name)
		}
		if err != nil {
			_ = d.root.Remove(part) // it may be half a file
			return
		}
		d.files++
		d.bytes += p.Size
	}()
	if p.Size == int64(len(p.Inline)) {
		_, err = f.Write(p.Inline)
		return err
	}
	return c.JobOutput(ctx, job, p.Task, p.Part, p.Name, f, nil)
}

func (d *target) open() (err error) {
	if d.root != nil {
		return nil
	}
	if err := os.MkdirAll(d.local, 0o755); err != nil {
		return err
	}
	d.root, err = os.OpenRoot(d.local)
	return err
}

// close lets go of the folder.
func (d *target) close() {
	if d != nil && d.root != nil {
		_ = d.root.Close() // the files in it were closed
	}
}

// text says what was put where.
func (d *target) text() string {
	return plural(d.files, "file") + ", " + bytesText(d.bytes) + ", in " + clean(d.pool+d.local)
}
