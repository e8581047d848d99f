package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"path"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks"
	"github.com/shoal-os/shoal/tasks/job"
)

const (
	// itemsInline is how many bytes of items stand in a spec itself; more are a file that each worker reads a part of.
	itemsInline = 32 << 10
	// hereText stands for the file that a source of several is under, if it is one.
	hereText = "."
)

// JobSubmit asks for work.
func (n *Node) JobSubmit(ctx context.Context, req client.JobRequest, progress func(client.Progress)) (client.Submitted, error) {
	c, err := n.circle()
	if err != nil {
		return client.Submitted{}, err
	}
	src := &sources{ctx: ctx, c: c, store: c.tasks.Store, tell: progress}
	spec, err := src.spec(&req)
	if err != nil {
		return client.Submitted{}, taskError(err)
	}
	s, err := c.tasks.Submit(ctx, spec, tasks.SubmitOptions{Fresh: req.Fresh})
	if err != nil {
		return client.Submitted{}, taskError(err)
	}
	out := client.Submitted{ID: s.ID.String(), Tasks: spec.All(), Cached: s.Cached, Stewards: []string{}, Spare: s.Spare}
	for _, id := range s.Stewards {
		out.Stewards = append(out.Stewards, c.name(id))
	}
	return out, nil
}

// JobStore stores a file for a job.
func (n *Node) JobStore(ctx context.Context, _ string, r io.Reader) (client.JobFile, error) {
	c, err := n.circle()
	if err != nil {
		return client.JobFile{}, err
	}
	f, err := c.tasks.Store(ctx, r)
	if err != nil {
		return client.JobFile{}, taskError(err)
	}
	return storedShape(f), nil
}

// spec makes a spec of a request.
func (s *sources) spec(req *client.JobRequest) (spec job.Spec, err error) {
	spec = job.Spec{
		Name: req.Name, Failures: req.Failures, Exclusive: req.Exclusive, AnyExit: req.AnyExit, Needs: req.Needs,
		Priority: req.Priority, Retention: seconds(req.Keep),
		Resources: job.Resources{Cores: req.Cores, Memory: req.Memory, Wall: seconds(req.Time), Output: req.Output},
	}
	if spec.Command, err = s.command(req.Program); err != nil {
		return spec, err
	}
	if req.Reduce != nil {
		reduce, err := s.command(*req.Reduce)
		if err != nil {
			return spec, err
		}
		spec.Reduce = &reduce
	}
	if spec.Inputs, err = s.inputs(req.Inputs); err != nil {
		return spec, err
	}
	if spec.Stdin, err = s.stdin(req.Stdin); err != nil {
		return spec, err
	}
	if req.Split != nil {
		spec.Split, err = s.split(req.Split, spec.Command.Kind)
	}
	return spec, err
}

func (s *sources) command(p client.JobProgram) (c job.Command, err error) {
	c = job.Command{Kind: job.Proc, Path: p.Path, Args: p.Args, Env: p.Env}
	if p.Kind == job.Wasm.String() {
		c.Kind = job.Wasm
	}
	if (c.Kind == job.Wasm) != (p.Module != nil) {
		return c, client.Errorf(client.KindInvalid, "", "a wasm program has a module, and a native command has none")
	}
	if p.Module == nil {
		return c, nil
	}
	if c.Module, err = s.one(*p.Module); err == nil && p.Module.Stored == nil {
		err = s.checkModule(*p.Module, c.Module)
	}
	return c, err
}

// wasmMagic begins every WebAssembly module (WebAssembly core specification, 5.5.16).
const wasmMagic = "\x00asm"

// checkModule refuses at once what no peer would ever run: the rest of what can be wrong with a module its compiler finds.
func (s *sources) checkModule(src client.JobSource, f job.File) error {
	r, err := s.c.tasks.OpenFile(s.ctx, f)
	if err != nil {
		return err
	}
	defer r.Close()
	var head [len(wasmMagic)]byte
	if n, err := r.ReadAt(head[:], 0); n < len(head) && !errors.Is(err, io.EOF) {
		return err
	}
	if string(head[:]) != wasmMagic {
		return client.Errorf(client.KindInvalid, "a native command comes after two dashes: shoal run -- COMMAND", "%s is no WebAssembly module", sourceText(src))
	}
	return nil
}

func (s *sources) inputs(list []client.JobInput) (out []job.Input, err error) {
	var found []named
	for _, in := range list {
		files, err := s.list(in.Name, in.From)
		if err != nil {
			return nil, err
		}
		found = append(found, files...)
	}
	if len(found) > job.InputsMax {
		return nil, client.Errorf(client.KindInvalid, "put them into an archive, or let each task read its own with `shoal map`",
			"%d input files are too many for one task, %d are the most", len(found), job.InputsMax)
	}
	if err := s.keep(found); err != nil {
		return nil, err
	}
	for _, f := range found {
		out = append(out, job.Input{Name: f.name, File: f.file})
	}
	return out, nil
}

func (s *sources) stdin(src *client.JobSource) (out job.Source, err error) {
	switch {
	case src == nil:
	case src.Text != nil && len(src.Text) <= job.StdinMax:
		out.Text = src.Text
	default:
		out.File, err = s.one(*src)
	}
	return out, err
}

func (s *sources) split(p *client.JobSplit, kind job.Kind) (job.Split, error) {
	switch {
	case p.Count > 0:
		return job.Split{Kind: job.Count, Count: uint32(p.Count)}, nil
	case len(p.Items) > 0:
		return s.items(textItems(p.Items))
	case len(p.Files) > 0:
		return s.fileItems(p.Files, kind)
	case p.Lines != nil:
		lines, err := s.lines(*p.Lines)
		if err != nil {
			return job.Split{}, err
		}
		if len(lines) == 0 {
			return job.Split{}, client.Errorf(client.KindInvalid, "", "%s has no lines, so there is nothing to do", sourceText(*p.Lines))
		}
		return s.items(textItems(lines))
	case p.Slice != nil:
		f, err := s.one(*p.Slice)
		if err == nil && f.Size == 0 {
			err = client.Errorf(client.KindInvalid, "", "%s is empty, so there is nothing to do", sourceText(*p.Slice))
		}
		return job.Split{Kind: job.Slices, File: f, Slice: p.Size, Lines: !p.Bytes}, err
	}
	return job.Split{}, client.Errorf(client.KindInvalid, "", "the split names nothing to split")
}

func textItems(texts []string) (out []job.Item) {
	for _, t := range texts {
		out = append(out, job.Item{Text: t})
	}
	return out
}

// fileItems makes a task of each file.
func (s *sources) fileItems(files []client.JobInput, kind job.Kind) (job.Split, error) {
	var found []named
	for _, in := range files {
		list, err := s.list(in.Name, in.From)
		if err != nil {
			return job.Split{}, err
		}
		if len(list) == 1 && list[0].name == hereText {
			list[0].name = guestName(cmp.Or(path.Base(filepath.ToSlash(sourceText(in.From))), "input"))
		}
		found = append(found, list...)
	}
	switch {
	case len(found) == 0:
		return job.Split{}, client.Errorf(client.KindNotFound, "`shoal ls` lists what is in the pool", "no file fits %s", sourceText(files[0].From))
	case len(found) > job.TasksMax:
		return job.Split{}, client.Errorf(client.KindInvalid, "", "%d files are too many for one job, %d are the most", len(found), job.TasksMax)
	}
	if err := s.keep(found); err != nil {
		return job.Split{}, err
	}
	where := "in/" // of a native command's own folder
	if kind == job.Wasm {
		where = "/in/"
	}
	var items []job.Item
	for _, f := range found {
		items = append(items, job.Item{Text: where + f.name, Inputs: []job.Input{{Name: f.name, File: f.file}}})
	}
	return s.items(items)
}

// items puts the items into the spec, or into a file if they are many.
func (s *sources) items(items []job.Item) (job.Split, error) {
	var buf bytes.Buffer
	if err := job.EncodeItems(&buf, items); err != nil {
		return job.Split{}, client.Wrap(client.KindInvalid, err, "")
	}
	if buf.Len() <= itemsInline {
		return job.Split{Kind: job.Items, Items: items}, nil
	}
	f, err := s.store(s.ctx, &buf)
	return job.Split{Kind: job.List, Count: uint32(len(items)), File: f}, err
}

// JobKill ends a job.
func (n *Node) JobKill(ctx context.Context, req client.JobRequestByID) (client.Job, error) {
	c, id, err := n.job(ctx, req.Job)
	if err != nil {
		return client.Job{}, err
	}
	if err := c.tasks.Kill(ctx, id, wire.CleanText(cmp.Or(req.Why, "killed"))); err != nil && !errors.Is(err, tasks.ErrOver) {
		return client.Job{}, taskError(err)
	}
	return c.jobNow(ctx, id)
}

// job resolves what a person calls a job: its id, the beginning of one, or its name. Of several of a name it is the newest.
func (n *Node) job(ctx context.Context, text string) (*circle, job.ID, error) {
	c, err := n.circle()
	if err != nil {
		return nil, job.ID{}, err
	}
	if id, err := job.ParseID(text); err == nil {
		return c, id, nil
	}
	ids, err := c.tasks.Find(ctx, text)
	if err != nil {
		return nil, job.ID{}, taskError(err)
	}
	id, err := chooseJob(text, ids)
	return c, id, err
}

func chooseJob(text string, ids []job.ID) (job.ID, error) {
	var begin []job.ID
	for _, id := range ids {
		if s := id.String(); len(text) <= len(s) && s[:len(text)] == text {
			begin = append(begin, id)
		}
	}
	switch {
	case len(begin) == 1:
		return begin[0], nil
	case len(begin) > 1 && len(begin) == len(ids):
		return job.ID{}, client.Errorf(client.KindInvalid, "give more of it", "%d jobs' ids begin with %s", len(begin), wire.CleanText(text))
	case len(ids) > 0:
		return ids[0], nil
	}
	return job.ID{}, client.Errorf(client.KindNotFound, "`shoal ps --all` lists the jobs", "there is no job %q", wire.CleanText(text))
}

// name is what a member is called; of one that is none any more, the end of its id.
func (c *circle) name(id peer.ID) string {
	if m, ok := c.pool.Member(id); ok {
		return wire.CleanText(m.Name)
	}
	for _, m := range c.pool.Former() {
		if m.ID == id && m.Name != "" {
			return wire.CleanText(m.Name)
		}
	}
	text := id.String()
	return "…" + text[max(0, len(text)-6):]
}

// taskError is the one place where the errors of work become kinds of failure, with what can be done.
func taskError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var known *client.Error
	if errors.As(err, &known) {
		return err
	}
	for _, is := range []struct {
		what error
		kind client.Kind
		hint string
	}{
		{tasks.ErrNoJob, client.KindNotFound, "`shoal ps --all` lists the jobs; results are kept for a week"},
		{tasks.ErrNoTask, client.KindNotFound, "tasks are counted from 0; `shoal ps` shows how many there are"},
		{tasks.ErrUnreachable, client.KindUnready, "start one of the machines that keep it; `shoal ps` names them, and `shoal peers` shows who is online"},
		{tasks.ErrSpec, client.KindInvalid, ""},
		{tasks.ErrRole, client.KindRefused, "a terminal may end only what it asked for; `shoal peers` shows the roles"},
		{tasks.ErrClosed, client.KindStopping, ""},
		{tree.ErrNotExist, client.KindNotFound, "`shoal ls` lists what is there"},
	} {
		if errors.Is(err, is.what) {
			return client.Wrap(is.kind, inPlainTasks{err}, is.hint)
		}
	}
	return fileError(err)
}

// inPlainTasks takes away the names of the parts that an error came through.
type inPlainTasks struct{ error }

func (e inPlainTasks) Error() string {
	return withoutPrefixes(e.error.Error(), "tasks: ", "submit: ", "job: ", "spec: ")
}
func (e inPlainTasks) Unwrap() error { return e.error }
