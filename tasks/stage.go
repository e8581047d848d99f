package tasks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/shoal-os/shoal/tasks/exec"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

// stage makes ready what a guest needs.
type stage struct {
	x       *try
	spec    *job.Spec
	loans   []loan
	fetched int64
}

func (s *stage) close() {
	for _, l := range s.loans {
		l.release()
	}
	// The guest's folder may be there whether it was needed here or not; of most tasks it is not.
	if err := errors.Join(os.RemoveAll(s.x.dir), os.RemoveAll(s.x.guestDir)); err != nil {
		s.x.h.t.log.Warn("tasks: an attempt's folder stays", "err", err)
	}
}

// file makes a local file of one of the pool.
func (s *stage) file(f job.File) (string, error) {
	l, err := s.x.h.shelf.get(s.x.ctx, f)
	if err != nil {
		return "", &fault{market.Inputs, err}
	}
	s.loans = append(s.loans, l)
	s.fetched += l.fetched
	return l.path, nil
}

// prepare resolves the task and fetches its inputs.
func (s *stage) prepare() (exec.Task, error) {
	x, spec := s.x, s.spec
	items, err := x.h.t.items(x.ctx, spec)
	if err != nil {
		return exec.Task{}, &fault{market.Inputs, err}
	}
	defer items.close()
	item, err := items.at(int(x.Task))
	if err != nil {
		if broken := items.broken(); broken != nil {
			return exec.Task{}, &fault{market.Inputs, broken}
		}
		return exec.Task{}, &blame{err.Error()}
	}
	task, err := spec.Task(int(x.Task), item)
	if err != nil {
		return exec.Task{}, &blame{err.Error()}
	}
	out := exec.Task{
		Kind: task.Command.Kind, Path: task.Command.Path, Args: task.Command.Args, Dir: x.guestDir, Limits: spec.Limits(),
		Env: append(job.Env(x.Job, spec, int(x.Task), x.Token), task.Command.Env...), Stdout: &x.out, Stderr: &x.err,
	}
	if task.Command.Kind == job.Wasm {
		out.ModuleID = moduleID(task.Command.Module)
		if out.Module, err = s.file(task.Command.Module); err != nil {
			return out, err
		}
	}
	for _, in := range task.Inputs {
		path, err := s.file(in.File)
		if err != nil {
			return out, err
		}
		out.Inputs = append(out.Inputs, exec.Mount{Name: in.Name, Path: path, Size: in.File.Size})
	}
	if task.Reduce {
		return out, s.gather(&out)
	}
	out.Stdin, err = s.stdin(&task)
	return out, err
}

// inlineSlice is the largest slice that goes to the guest without a file, in bytes.
const inlineSlice = 64 << 10

// stdin makes a task's standard input.
func (s *stage) stdin(task *job.Task) (exec.Stdin, error) {
	switch {
	case task.Slice != nil:
		return s.slice(task)
	case task.Stdin.File.Defined():
		path, err := s.file(task.Stdin.File)
		return exec.Stdin{Path: path, Size: -1}, err
	}
	return exec.Stdin{Text: task.Stdin.Text}, nil
}

// slice fetches a task's part of the split file, and no more than that.
func (s *stage) slice(task *job.Task) (exec.Stdin, error) {
	f, x := task.Stdin.File, s.x
	first, end := task.Slice.First, task.Slice.First+task.Slice.Size
	if s.spec.Split.Lines {
		r, err := x.h.t.OpenFile(x.ctx, f)
		if err != nil {
			return exec.Stdin{}, &fault{market.Inputs, err}
		}
		defer func() { _ = r.Close() }()
		buf := make([]byte, 64<<10)
		for _, at := range []*int64{&first, &end} {
			if *at, err = job.CutAt(r, f.Size, *at, buf); err != nil {
				return exec.Stdin{}, &fault{market.Inputs, err}
			}
		}
	}
	size := end - first
	if size <= 0 {
		return exec.Stdin{}, nil
	}
	path := filepath.Join(x.dir, "stdin")
	n, err := x.h.t.copyOut(x.ctx, f, first, size, path)
	if err != nil {
		return exec.Stdin{}, &fault{market.Inputs, err}
	}
	s.fetched += n
	if size <= inlineSlice {
		text, err := os.ReadFile(path)
		return exec.Stdin{Text: text}, err
	}
	return exec.Stdin{Path: path, Size: size}, nil
}

// gather makes what a reduce reads: the standard outputs of all other tasks, in order, as its standard input, and their files as
// NUMBER/NAME.
func (s *stage) gather(out *exec.Task) error {
	x := s.x
	path := filepath.Join(x.dir, "stdin")
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return err
	}
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	for r, err := range x.h.t.results(x.ctx, x.Job, 0, s.spec.Tasks()) {
		if err != nil {
			return &fault{market.Inputs, err}
		}
		if r.State != market.Succeeded || len(r.Results) == 0 {
			return &fault{market.Inputs, fmt.Errorf("task %d is %v", r.Task, r.State)}
		}
		if err := s.gatherOne(out, w, r.Task, r.Results[0]); err != nil {
			return err
		}
	}
	if len(out.Inputs) > reduceInputs {
		return &blame{fmt.Sprintf("the tasks left %d files; a reduce takes at most %d", len(out.Inputs), reduceInputs)}
	}
	out.Stdin = exec.Stdin{Path: path, Size: -1}
	return nil
}

// reduceInputs bounds the files that a reduce finds; exec takes no more.
const reduceInputs = 4096

func (s *stage) gatherOne(out *exec.Task, w *os.File, task int, r *job.Result) error {
	if f := r.Stdout.File; f.Defined() {
		in, err := s.x.h.t.OpenFile(s.x.ctx, f)
		if err != nil {
			return &fault{market.Inputs, err}
		}
		_, err = copyAll(w, in, f.Size)
		if err = errors.Join(err, in.Close()); err != nil {
			return &fault{market.Inputs, err}
		}
	} else if _, err := w.Write(r.Stdout.Inline); err != nil {
		return err
	}
	outputs, err := s.x.h.t.Outputs(s.x.ctx, r)
	if err != nil {
		return &fault{market.Inputs, err}
	}
	for i, o := range outputs {
		name := strconv.Itoa(task) + "/" + o.Name
		var path string
		if o.File.Defined() {
			if path, err = s.file(o.File); err != nil {
				return err
			}
		} else {
			path = filepath.Join(s.x.dir, "in", fmt.Sprintf("%d-%d", task, i))
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, o.Inline, 0o600)); err != nil {
				return err
			}
		}
		if out.Inputs = append(out.Inputs, exec.Mount{Name: name, Path: path, Size: o.File.Size + int64(len(o.Inline))}); len(out.Inputs) > reduceInputs {
			return nil
		}
	}
	return nil
}
