package job

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/shoal-os/shoal/dht/ident"
)

// Validate reports the first thing that is wrong with a spec. Every bound above is held by it.
func (s *Spec) Validate() error {
	if err := s.validate(); err != nil {
		return fmt.Errorf("job: spec: %w", err)
	}
	return nil
}

func (s *Spec) validate() error {
	switch {
	case !s.Pool.Defined():
		return errors.New("it names no pool")
	case s.Submitter == "":
		return errors.New("it names no submitter")
	case s.Name != ident.CleanName(s.Name):
		return errors.New("its name has characters that cannot be shown, or is too long")
	case s.Created.UnixMilli() < 0:
		return errors.New("it was made before 1970")
	case s.Priority < -PriorityMx || s.Priority > PriorityMx:
		return fmt.Errorf("priority %d is not between %d and %d", s.Priority, -PriorityMx, PriorityMx)
	case s.Retention < 0 || s.Retention > RetainMax:
		return fmt.Errorf("results cannot be kept for %v", s.Retention)
	case s.Failures < 0 || s.Failures > FailuresMax:
		return fmt.Errorf("%d failures a task", s.Failures)
	}
	if err := s.Command.validate(); err != nil {
		return err
	}
	if s.Reduce != nil {
		if err := s.Reduce.validate(); err != nil {
			return fmt.Errorf("reduce: %w", err)
		}
	}
	if err := validInputs(s.Inputs); err != nil {
		return err
	}
	if err := s.Stdin.validate(); err != nil {
		return err
	}
	if err := validTexts("need", s.Needs, NeedsMax, NameMax); err != nil {
		return err
	}
	if err := s.Resources.validate(); err != nil {
		return err
	}
	return s.Split.validate()
}

func (c *Command) validate() error {
	switch c.Kind {
	case Wasm:
		if !c.Module.Defined() || c.Path != "" {
			return errors.New("a wasm program is named by its module")
		}
	case Proc:
		if c.Module.Defined() || c.Path == "" {
			return errors.New("a native command is named by its path")
		}
	default:
		return fmt.Errorf("kind %d of program", c.Kind)
	}
	if err := c.Module.validate(); err != nil {
		return err
	}
	if err := validTexts("path", []string{c.Path}, 1, ArgMax); err != nil {
		return err
	}
	if err := validTexts("argument", c.Args, ArgsMax, ArgMax); err != nil {
		return err
	}
	for _, e := range c.Env {
		if strings.IndexByte(e, '=') < 1 {
			return fmt.Errorf("environment: %.40q is not NAME=value", e)
		}
	}
	return validTexts("environment", c.Env, ArgsMax, ArgMax)
}

func (r Resources) validate() error {
	switch {
	case r.Cores < 0 || r.Cores > CoresMax:
		return fmt.Errorf("%d cores", r.Cores)
	case r.Memory < 0 || r.Memory > MemoryMax:
		return fmt.Errorf("%d bytes of memory", r.Memory)
	case r.Wall < 0 || r.Wall > WallMax:
		return fmt.Errorf("%v of running time", r.Wall)
	case r.Output < 0 || r.Output > OutputMax:
		return fmt.Errorf("%d bytes of output", r.Output)
	}
	return nil
}

func (p *Split) validate() error {
	none := func(ok bool) error {
		if !ok || p.Slice != 0 && p.Kind != Slices || len(p.Items) > 0 && p.Kind != Items {
			return fmt.Errorf("the split has fields that kind %d does not use", p.Kind)
		}
		return nil
	}
	if err := p.File.validate(); err != nil {
		return err
	}
	switch p.Kind {
	case One:
		return none(p.Count == 0 && !p.File.Defined() && !p.Lines)
	case Count, List:
		if p.Count < 1 || p.Count > TasksMax {
			return fmt.Errorf("%d tasks; from 1 to %d are possible", p.Count, TasksMax)
		}
		return none(p.File.Defined() == (p.Kind == List) && !p.Lines)
	case Items:
		if len(p.Items) < 1 || len(p.Items) > TasksMax {
			return fmt.Errorf("%d items", len(p.Items))
		}
		for i := range p.Items {
			if err := p.Items[i].validate(); err != nil {
				return fmt.Errorf("item %d: %w", i, err)
			}
		}
		return none(p.Count == 0 && !p.File.Defined() && !p.Lines)
	case Slices:
		if p.Slice < SliceMin || !p.File.Defined() || p.File.Size < 1 {
			return fmt.Errorf("slices of %d bytes of a file of %d", p.Slice, p.File.Size)
		}
		if n := (p.File.Size + p.Slice - 1) / p.Slice; n > TasksMax {
			return fmt.Errorf("%d slices; at most %d are possible", n, TasksMax)
		}
		return none(p.Count == 0)
	}
	return fmt.Errorf("kind %d of split", p.Kind)
}

func (it *Item) validate() error {
	if err := validTexts("text", []string{it.Text}, 1, ArgMax); err != nil {
		return err
	}
	return validInputs(it.Inputs)
}

func validInputs(in []Input) error {
	if len(in) > InputsMax {
		return fmt.Errorf("%d inputs; at most %d are possible", len(in), InputsMax)
	}
	for _, i := range in {
		if err := validName(i.Name); err != nil {
			return fmt.Errorf("input: %w", err)
		}
		if !i.File.Defined() {
			return fmt.Errorf("input %q names no file", i.Name)
		}
		if err := i.File.validate(); err != nil {
			return fmt.Errorf("input %q: %w", i.Name, err)
		}
	}
	return nil
}

// validName holds that a name stays below the folder it is put in, on every system. What a certain system cannot hold
// besides is the runner's to find.
func validName(name string) error {
	if name == "" || len(name) > 4*NameMax || !utf8.ValidString(name) || strings.ContainsAny(name, "\\\x00:") ||
		path.IsAbs(name) || path.Clean(name) != name || name == "." || name == ".." || strings.HasPrefix(name, "../") {
		return fmt.Errorf("the name %.40q", name)
	}
	return nil
}

func (s *Source) validate() error {
	if len(s.Text) > StdinMax || len(s.Text) > 0 && s.File.Defined() {
		return errors.New("standard input is a short text or a file")
	}
	return s.File.validate()
}

// validate holds sizes; the zero file passes.
func (f *File) validate() error {
	if f.Size < 0 || f.Size > FilesMax || !f.Defined() && (f.Size != 0 || len(f.Pieces) > 0) {
		return fmt.Errorf("a file of %d bytes", f.Size)
	}
	if len(f.Pieces) == 0 {
		return nil
	}
	if len(f.Pieces) > PiecesMax {
		return fmt.Errorf("a file of %d pieces; at most %d are possible", len(f.Pieces), PiecesMax)
	}
	left := f.Size
	for _, p := range f.Pieces {
		if !p.ID.Defined() || p.Size < 1 || p.Size > left {
			return errors.New("a file whose pieces do not add up")
		}
		left -= p.Size
	}
	if left != 0 {
		return errors.New("a file whose pieces do not add up")
	}
	return nil
}

// validTexts bounds a list of texts, which go to a program as they are: no zero byte, and UTF-8, since the schema has it.
func validTexts(what string, list []string, count, size int) error {
	if len(list) > count {
		return fmt.Errorf("%d of %s; at most %d are possible", len(list), what, count)
	}
	for _, t := range list {
		if len(t) > size || strings.IndexByte(t, 0) >= 0 || !utf8.ValidString(t) {
			return fmt.Errorf("%s %.40q is too long or not text", what, t)
		}
	}
	return nil
}
