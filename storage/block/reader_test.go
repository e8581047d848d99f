package block

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A reader notices whatever happened to a shared file, says so, and never
// serves it as if nothing had; the receiver would take this peer for a liar.
func TestReaderNoticesChange(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(path string) error
		problem string
	}{
		"modified":              {func(p string) error { return os.WriteFile(p, []byte(noise(9, 3<<20+5)), 0o644) }, "changed"},
		"touched":               {func(p string) error { return os.Chtimes(p, time.Time{}, time.Unix(1e9, 0)) }, "changed"},
		"truncated":             {func(p string) error { return os.Truncate(p, 100) }, "changed"},
		"grown":                 {func(p string) error { return appendTo(p, "more") }, "changed"},
		"removed":               {os.Remove, "missing"},
		"replaced by a folder":  {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, "changed"},
		"replaced by a fifo":    {func(p string) error { return errors.Join(os.Remove(p), mkfifo(p)) }, "changed"},
		"replaced by a symlink": {replaceByLink, "changed"},
		"folder removed":        {func(p string) error { return os.RemoveAll(filepath.Dir(p)) }, "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			st, s := open(t, dir), mixed(t)
			r := share(t, st, s)
			path := filepath.Join(r.Info().Path, "big")
			if err := c.change(path); err != nil {
				t.Skip(err)
			}
			rd, err := r.NewReader()
			if err != nil {
				t.Fatal(err)
			}
			defer rd.Close()
			for i := range s.leaves {
				gone := s.tree.Entries[s.tree.Leaves[i].Entry].Path == "big" || name == "folder removed"
				got, err := rd.ReadLeaf(i, nil)
				if gone != errors.Is(err, ErrChanged) || gone && len(got) > 0 {
					t.Errorf("leaf %d of %s: %d bytes, %v", i, s.tree.Entries[s.tree.Leaves[i].Entry].Path, len(got), err)
				}
			}
			if p := r.Info().Problem; !strings.Contains(p, c.problem) {
				t.Errorf("problem: %q", p)
			}
			// A check from outside comes to the same view.
			r.Problem("")
			if bad, err := r.Check(10); err != nil || len(bad) == 0 {
				t.Errorf("check: %v, %v", bad, err)
			}
			if r.Info().Problem == "" {
				t.Error("check noted no problem")
			}
		})
	}
}

func replaceByLink(p string) error {
	return errors.Join(os.Rename(p, p+".real"), os.Symlink(p+".real", p))
}

// Once a file is as it was, the problem is over.
func TestCheckClearsProblem(t *testing.T) {
	st, s := open(t, t.TempDir()), mixed(t)
	r := share(t, st, s)
	path := filepath.Join(r.Info().Path, "small")
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	if bad, err := r.Check(10); err != nil || len(bad) != 1 || bad[0] != "small" {
		t.Fatalf("%v, %v", bad, err)
	}
	if err := os.Chtimes(path, time.Time{}, fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	if bad, err := r.Check(10); err != nil || len(bad) != 0 || r.Info().Problem != "" {
		t.Fatalf("%v, %v, %q", bad, err, r.Info().Problem)
	}
}

func TestReaderRefusesWhatIsNotHere(t *testing.T) {
	st, s := open(t, t.TempDir()), mixed(t)
	r := s.begin(t, st, filepath.Join(t.TempDir(), "out"))
	s.fill(t, r, 1)
	rd, err := r.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	for i := range s.leaves {
		_, err := rd.ReadLeaf(i, nil)
		if (i == 1) != (err == nil) || i != 1 && !errors.Is(err, ErrNotFound) {
			t.Errorf("leaf %d: %v", i, err)
		}
	}
	for _, i := range []int{-1, len(s.leaves), 1 << 30} {
		if _, err := rd.ReadLeaf(i, nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("leaf %d: %v", i, err)
		}
	}
}

// A reader that served a partial goes on when it is finished under its feet,
// and from then on notices changes.
func TestReaderOverFinish(t *testing.T) {
	for name, s := range map[string]sample{
		"folder": mixed(t), "file": makeSample(t, map[string]string{"": noise(6, 3<<20)}),
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			r := s.begin(t, open(t, t.TempDir()), out)
			s.fill(t, r)
			rd, err := r.NewReader()
			if err != nil {
				t.Fatal(err)
			}
			defer rd.Close()
			if _, err := rd.ReadLeaf(0, nil); err != nil {
				t.Fatal(err)
			}
			if err := r.Finish(false); err != nil {
				t.Fatal(err)
			}
			for i := range s.leaves {
				if _, err := rd.ReadLeaf(i, nil); err != nil {
					t.Errorf("leaf %d: %v", i, err)
				}
			}
			for _, e := range s.tree.Entries {
				if e.Count > 0 {
					if err := appendTo(filepath.Join(out, e.Path), "x"); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i := range s.leaves {
				if _, err := rd.ReadLeaf(i, nil); !errors.Is(err, ErrChanged) {
					t.Errorf("leaf %d of a changed file: %v", i, err)
				}
			}
		})
	}
}
