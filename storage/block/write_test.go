package block

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-os/shoal/storage/chunk"
)

func TestFinish(t *testing.T) {
	file := makeSample(t, map[string]string{"": noise(11, 2<<20)})
	link := makeSample(t, map[string]string{"": linkTo + "../somewhere"})
	empty := makeSample(t, map[string]string{"": ""})
	hollow := makeSample(t, map[string]string{"only": folder})
	samples := map[string]sample{"folder": mixed(t), "file": file, "symlink": link, "empty file": empty, "empty folder": hollow}
	stands := map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"file":    func(p string) error { return os.WriteFile(p, []byte("mine"), 0o644) },
		"folder": func(p string) error {
			return errors.Join(os.Mkdir(p, 0o755), os.WriteFile(filepath.Join(p, "mine"), []byte("mine"), 0o644))
		},
		"symlink": func(p string) error { return os.Symlink("elsewhere", p) },
	}
	for name, s := range samples {
		for what, stand := range stands {
			t.Run(name+" over "+what, func(t *testing.T) {
				dir, parent := t.TempDir(), t.TempDir()
				out := filepath.Join(parent, "out")
				st := open(t, dir)
				r := s.begin(t, st, out)
				s.fill(t, r)
				if err := stand(out); err != nil {
					t.Fatal(err)
				}
				if what != "nothing" {
					if err := r.Finish(false); !errors.Is(err, ErrExists) {
						t.Fatalf("without replace: %v", err)
					}
					if i := s.root(t, open(t, dir)).Info(); i.State != Partial {
						t.Fatalf("state %v after refusal", i.State)
					}
				}
				if err := r.Finish(true); err != nil {
					t.Fatal(err)
				}
				s.check(t, out)
				if names, _ := os.ReadDir(parent); len(names) != 1 {
					t.Errorf("left over: %v", names)
				}
				if i := s.root(t, open(t, dir)).Info(); i.State != Complete || i.PartialPath != "" {
					t.Errorf("record: %+v", i)
				}
				s.readable(t, s.root(t, open(t, dir)))
			})
		}
	}
}

func TestFinishNeedsAllLeaves(t *testing.T) {
	s := mixed(t)
	out := filepath.Join(t.TempDir(), "out")
	r := s.begin(t, open(t, t.TempDir()), out)
	s.fill(t, r, 0, 1, 2)
	if err := r.Finish(false); err == nil {
		t.Fatal("finished without all leaves")
	}
	if _, err := os.Lstat(out); err == nil {
		t.Error("something stands under the finished name")
	}
}

// What somebody did to the partial shows before it gets its name.
func TestFinishNoticesTampering(t *testing.T) {
	for name, do := range map[string]func(path string) error{
		"removed":   os.Remove,
		"truncated": func(p string) error { return os.Truncate(p, 10) },
		"folder":    func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			s, out := mixed(t), filepath.Join(t.TempDir(), "out")
			r := s.begin(t, open(t, t.TempDir()), out)
			s.fill(t, r)
			if err := do(filepath.Join(out+PartialSuffix, "big")); err != nil {
				t.Fatal(err)
			}
			if err := r.Finish(false); !errors.Is(err, ErrChanged) {
				t.Fatalf("finish: %v", err)
			}
			if _, err := os.Lstat(out); err == nil {
				t.Error("something stands under the finished name")
			}
		})
	}
}

// A file that is too long is cut: its leaves are verified, the rest is nobody's.
func TestFinishCutsOff(t *testing.T) {
	s, out := mixed(t), filepath.Join(t.TempDir(), "out")
	r := s.begin(t, open(t, t.TempDir()), out)
	s.fill(t, r)
	for _, name := range []string{"big", "small"} {
		if err := appendTo(filepath.Join(out+PartialSuffix, name), "rubbish"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Finish(false); err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
}

// Finish is a sequence of steps; a crash after any of them leaves the old
// content or the new under the name, and a record that says which bytes are here.
func TestCrashWhileFinishing(t *testing.T) {
	s := mixed(t)
	links := func(r *Root, _ string) error {
		at, err := r.openPlace(s.tree)
		if err != nil {
			return err
		}
		defer at.dir.Close()
		r.mtimes, err = r.complete(s.tree, at)
		return err
	}
	aside := func(_ *Root, out string) error { return os.Rename(out, out+".shoal-replaced-1") }
	placed := func(_ *Root, out string) error { return os.Rename(out+PartialSuffix, out) }
	times := func(r *Root, _ string) error { return r.writeMtimes() }
	type step = func(r *Root, out string) error
	for _, c := range []struct {
		name string
		do   []step
	}{
		{"links made", []step{links}},
		{"old moved aside", []step{links, aside}},
		{"in place, record not written", []step{links, aside, placed}},
		{"times written, record not", []step{links, aside, placed, times}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
			if err := os.WriteFile(out, []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			r := s.begin(t, open(t, dir), out)
			s.fill(t, r)
			for _, step := range c.do {
				if err := step(r, out); err != nil {
					t.Fatal(err)
				}
			}
			r = s.root(t, open(t, dir))
			if r.Info().State != Partial || r.HaveCount() != len(s.leaves) {
				t.Fatalf("record: %+v", r.Info())
			}
			_, err := os.Lstat(out + PartialSuffix)
			if partial := err == nil; partial {
				if err := r.Finish(true); err != nil {
					t.Fatal(err)
				}
			} else if r.Trusted() {
				t.Error("a partial that is not there is trusted")
			}
			s.check(t, out)
		})
	}
}

func TestPlaceLink(t *testing.T) {
	for name, c := range map[string]struct {
		before func(path string) error
		fails  bool
	}{
		"nothing":       {func(string) error { return nil }, false},
		"same link":     {func(p string) error { return os.Symlink("target", p) }, false},
		"another link":  {func(p string) error { return os.Symlink("/etc", p) }, false},
		"a file":        {func(p string) error { return os.WriteFile(p, nil, 0o644) }, false},
		"a full folder": {func(p string) error { return os.MkdirAll(filepath.Join(p, "x"), 0o755) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "l")
			if err := c.before(path); err != nil {
				t.Fatal(err)
			}
			at, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer at.Close()
			if err := placeLink(at, "l", "target"); (err != nil) != c.fails {
				t.Fatalf("err = %v", err)
			}
			if got, _ := os.Readlink(path); got != "target" && !c.fails {
				t.Errorf("link to %q", got)
			}
		})
	}
}

// A symbolic link in the partial, put there by somebody else, leads no write
// out of it.
func TestWriterStaysInside(t *testing.T) {
	s := mixed(t)
	out, outside := filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "outside")
	r := s.begin(t, open(t, t.TempDir()), out)
	for _, name := range []string{"small", "big"} {
		if err := os.Symlink(outside, filepath.Join(out+PartialSuffix, name)); err != nil {
			t.Fatal(err)
		}
	}
	w, err := r.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range s.leaves {
		e := s.tree.Entries[s.tree.Leaves[i].Entry]
		if err := w.WriteLeaf(i, s.leaves[i]); (err == nil) == (e.Path == "small" || e.Path == "big") {
			t.Errorf("leaf %d of %s: %v", i, e.Path, err)
		}
	}
	if _, err := os.Lstat(outside); err == nil {
		t.Error("written outside")
	}
}

// Several writers may work on one file at once.
func TestWritersTogether(t *testing.T) {
	s := makeSample(t, map[string]string{"": noise(12, 8<<20+1)})
	out := filepath.Join(t.TempDir(), "out")
	r := s.begin(t, open(t, t.TempDir()), out)
	errs := make(chan error)
	for k := range 3 {
		go func() {
			w, err := r.NewWriter()
			if err != nil {
				errs <- err
				return
			}
			defer w.Close()
			for i := k; i < len(s.leaves) && err == nil; i += 3 {
				err = errors.Join(w.WriteLeaf(i, s.leaves[i]), r.Mark(i))
			}
			errs <- err
		}()
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if err := r.Finish(false); err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
}

func TestCaseClash(t *testing.T) {
	for _, c := range []struct {
		paths []string
		clash bool
	}{
		{[]string{"", "a", "b"}, false},
		{[]string{"", "a", "a/x", "b", "b/x"}, false},
		{[]string{"", "README", "readme"}, true},
		{[]string{"", "dir", "dir/Ünï", "dir/üNÏ"}, true},
		{[]string{"", "dir", "dir/x", "DIR", "DIR/y"}, true},
		{[]string{"", "ſ", "s"}, true},
	} {
		tree := &chunk.Tree{}
		for _, p := range c.paths {
			tree.Entries = append(tree.Entries, chunk.Entry{Path: p})
		}
		if a, b, clash := caseClash(tree); clash != c.clash {
			t.Errorf("%q: clash %v (%q, %q)", c.paths, clash, a, b)
		}
	}
}
