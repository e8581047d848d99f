package block

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A partial that no record tells of is taken over if it can be one of the root.
func TestBeginTakesOver(t *testing.T) {
	s := mixed(t)
	for name, c := range map[string]struct {
		lay    func(t *testing.T, partial string)
		claims int
	}{
		"folders only": {func(t *testing.T, p string) { mkdir(t, filepath.Join(p, "sub", "deeper")) }, 0},
		"all of it":    {func(t *testing.T, p string) { s.put(t, p) }, len(s.leaves)},
		"half a file": {func(t *testing.T, p string) {
			s.put(t, p)
			if err := os.Truncate(filepath.Join(p, "big"), 1<<20+9); err != nil {
				t.Fatal(err)
			}
		}, len(s.leaves) - 3},
		"too long": {func(t *testing.T, p string) {
			s.put(t, p)
			if err := appendTo(filepath.Join(p, "small"), "more"); err != nil {
				t.Fatal(err)
			}
		}, len(s.leaves)},
	} {
		t.Run(name, func(t *testing.T) {
			dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
			c.lay(t, out+PartialSuffix)
			st := open(t, dir)
			r := s.begin(t, st, out)
			if r.HaveCount() != c.claims || r.Suspect() != (c.claims > 0) || c.claims > 0 && r.Trusted() {
				t.Fatalf("%d claims, suspect %v, trusted %v", r.HaveCount(), r.Suspect(), r.Trusted())
			}
			// A crash now must not make them believed.
			if again := s.root(t, open(t, dir)); again.Suspect() != (c.claims > 0) || again.HaveCount() != c.claims {
				t.Errorf("reopened: %d claims, suspect %v", again.HaveCount(), again.Suspect())
			}
			if err := r.Rechecked(); err != nil {
				t.Fatal(err)
			}
			if !r.Trusted() || s.root(t, open(t, dir)).Suspect() {
				t.Error("not trusted after a recheck")
			}
			s.fill(t, r)
			if err := r.Finish(false); err != nil {
				t.Fatal(err)
			}
			s.check(t, out)
		})
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// A partial that cannot be this root's is not touched.
func TestBeginRefusesAnothersPartial(t *testing.T) {
	s := mixed(t)
	for name, lay := range map[string]func(p string) error{
		"a file":          func(p string) error { return os.WriteFile(p, []byte("mine"), 0o644) },
		"a symbolic link": func(p string) error { return os.Symlink(".", p) },
		"a strange file": func(p string) error {
			return errors.Join(os.Mkdir(p, 0o755), os.WriteFile(filepath.Join(p, "mine"), nil, 0o644))
		},
		"a folder for a file": func(p string) error { return os.MkdirAll(filepath.Join(p, "big"), 0o755) },
		"a link for a file": func(p string) error {
			return errors.Join(os.Mkdir(p, 0o755), os.Symlink("x", filepath.Join(p, "big")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			if err := lay(out + PartialSuffix); err != nil {
				t.Fatal(err)
			}
			st := open(t, t.TempDir())
			if _, err := st.Begin(s.tree, s.nodes, "x", out); !errors.Is(err, ErrExists) {
				t.Fatalf("begin: %v", err)
			}
			if _, err := os.Lstat(out + PartialSuffix); err != nil || len(st.Roots()) != 0 {
				t.Errorf("%v, %d records", err, len(st.Roots()))
			}
		})
	}
	t.Run("another download's", func(t *testing.T) {
		out, st := filepath.Join(t.TempDir(), "out"), open(t, t.TempDir())
		a, b := makeSample(t, map[string]string{"": "a"}), makeSample(t, map[string]string{"": "b"})
		a.begin(t, st, out)
		if _, err := st.Begin(b.tree, b.nodes, "b", out); !errors.Is(err, ErrExists) {
			t.Fatalf("begin: %v", err)
		}
	})
	t.Run("a copy's", func(t *testing.T) {
		out, st := filepath.Join(t.TempDir(), "out"), open(t, t.TempDir())
		a, b := makeSample(t, map[string]string{"": "a"}), makeSample(t, map[string]string{"": "b"})
		share(t, st, makeSample(t, map[string]string{"x": "a"}))
		r, err := st.BeginCopy(a.tree, "a", out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Begin(b.tree, b.nodes, "b", out); !errors.Is(err, ErrExists) {
			t.Fatalf("begin: %v", err)
		}
		if err := st.Discard(r); err != nil {
			t.Fatal(err)
		}
		b.begin(t, st, out)
	})
}

// What could not be laid out whole leaves nothing behind that would be in the
// way the next time.
func TestBeginFailureCleansUp(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	st, s := open(t, dir), mixed(t)
	if err := os.RemoveAll(dir); err != nil { // the store's disk is gone
		t.Fatal(err)
	}
	if _, err := st.Begin(s.tree, s.nodes, "x", out); err == nil {
		t.Fatal("begun without a record")
	}
	if _, err := os.Lstat(out + PartialSuffix); err == nil {
		t.Error("the partial is still there")
	}
	mkdir(t, dir)
	s.begin(t, st, out)
}

func TestTrusted(t *testing.T) {
	s := mixed(t)
	later := func(p string) error {
		fi, err := os.Stat(p)
		if err != nil {
			return err
		}
		at := fi.ModTime().Add(2 * claimSlack)
		return os.Chtimes(p, at, at)
	}
	for name, c := range map[string]struct {
		do    func(r *Root, partial string) error
		trust bool
	}{
		"as it was left":        {func(*Root, string) error { return nil }, true},
		"another boot":          {func(r *Root, _ string) error { r.meta.Boot = "another"; return r.writeMeta() }, false},
		"a file written since":  {func(_ *Root, p string) error { return later(filepath.Join(p, "big")) }, false},
		"a file removed since":  {func(_ *Root, p string) error { return errors.Join(os.Remove(filepath.Join(p, "big")), later(p)) }, false},
		"all removed":           {func(_ *Root, p string) error { return os.RemoveAll(p) }, false},
		"bitfield gone with it": {func(r *Root, _ string) error { return os.Remove(filepath.Join(r.dir, haveFile)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
			r := s.begin(t, open(t, dir), out)
			s.fill(t, r, 0, 1)
			if err := c.do(r, out+PartialSuffix); err != nil {
				t.Fatal(err)
			}
			r = s.root(t, open(t, dir))
			if r.Trusted() != c.trust || r.Suspect() == c.trust {
				t.Errorf("trusted %v, suspect %v", r.Trusted(), r.Suspect())
			}
		})
	}
}

// A finished download is believed within the boot that wrote it, and for good
// once it is known to be on the disk.
func TestTrustedComplete(t *testing.T) {
	dir := t.TempDir()
	s := mixed(t)
	r := download(t, open(t, dir), s, filepath.Join(t.TempDir(), "out"))
	if !r.Trusted() || !s.root(t, open(t, dir)).Trusted() {
		t.Error("not trusted in its own boot")
	}
	r.meta.Boot = "another"
	if err := r.writeMeta(); err != nil {
		t.Fatal(err)
	}
	again := s.root(t, open(t, dir))
	if again.Trusted() || !again.Suspect() {
		t.Error("trusted after a reboot without a sync")
	}
	again.Problem("damaged")
	if _, err := again.Check(1); err != nil || again.Info().Problem == "" {
		t.Error("a look at times cleared what is wrong with the bytes")
	}
	if err := again.Rechecked(); err != nil {
		t.Fatal(err)
	}
	if err := again.Synced(); err != nil {
		t.Fatal(err)
	}
	again.meta.Boot, r.meta.Boot = "", ""
	if last := s.root(t, open(t, dir)); !last.Trusted() || last.meta.Boot != "" {
		t.Error("not trusted after a sync")
	}
}

func TestAdopt(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	st, s := open(t, dir), mixed(t)
	s.put(t, out)
	if _, err := st.Adopt(s.tree, s.nodes, "x", out); err != nil {
		t.Fatal(err)
	}
	r := s.root(t, open(t, dir))
	if r.Info().State != Complete {
		t.Errorf("%+v", r.Info())
	}
	s.readable(t, r)
	if err := os.Truncate(filepath.Join(out, "big"), 5); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Adopt(s.tree, s.nodes, "x", out); !errors.Is(err, ErrChanged) {
		t.Errorf("adopted other files: %v", err)
	}
}

// A copy has no record of its own, and ends with its partial if it did not get far.
func TestBeginCopy(t *testing.T) {
	dir, parent := t.TempDir(), t.TempDir()
	st, s := open(t, dir), mixed(t)
	share(t, st, s)
	out := filepath.Join(parent, "out")
	r, err := st.BeginCopy(s.tree, "copy", out)
	if err != nil {
		t.Fatal(err)
	}
	s.fill(t, r, 0)
	if err := st.Discard(r); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(parent); len(names) != 0 {
		t.Errorf("left over: %v", names)
	}
	if r, err = st.BeginCopy(s.tree, "copy", out); err != nil {
		t.Fatal(err)
	}
	s.fill(t, r)
	if err := errors.Join(r.Finish(false), st.Discard(r)); err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
	if i := s.root(t, open(t, dir)).Info(); i.State != Indexed {
		t.Errorf("the share's record: %+v", i)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("records: %v", names)
	}
}
