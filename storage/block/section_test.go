package block

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// sink is a connection that does something when the leaf's bytes come, before its last one.
type sink struct {
	bytes.Buffer
	then func()
}

func (s *sink) ReadFrom(r io.Reader) (int64, error) {
	n, err := s.Buffer.ReadFrom(r)
	s.then()
	return n, err
}

// A leaf that is copied from its file comes whole, or its last byte never does.
func TestSection(t *testing.T) {
	s := mixed(t)
	for name, change := range map[string]func(path string) error{
		"unchanged": func(string) error { return nil },
		"touched":   func(p string) error { return os.Chtimes(p, time.Time{}, time.Unix(1e9, 0)) },
		"cut short": func(p string) error { return os.Truncate(p, 100) },
		"grown":     func(p string) error { return appendTo(p, "more") },
	} {
		t.Run(name, func(t *testing.T) {
			r := share(t, open(t, t.TempDir()), s)
			rd, err := r.NewReader()
			if err != nil {
				t.Fatal(err)
			}
			defer rd.Close()
			for i, leaf := range s.tree.Leaves {
				e := s.tree.Entries[leaf.Entry]
				if e.Path != "big" {
					continue
				}
				sec, err := rd.Section(i)
				if name != "unchanged" && i > int(e.First) {
					if !errors.Is(err, ErrChanged) {
						t.Errorf("leaf %d: %v", i, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				w := &sink{then: func() {
					if err := change(filepath.Join(r.Info().Path, "big")); err != nil {
						t.Fatal(err)
					}
				}}
				err = sec.CopyTo(w)
				if name == "unchanged" {
					if err != nil || w.String() != string(s.leaves[i]) {
						t.Errorf("leaf %d: %d bytes, %v", i, w.Len(), err)
					}
				} else if !errors.Is(err, ErrChanged) || w.Len() >= int(leaf.Size) || r.Info().Problem == "" {
					t.Errorf("leaf %d: %d bytes of %d, %v, problem %q", i, w.Len(), leaf.Size, err, r.Info().Problem)
				}
			}
		})
	}
}

// A file that is shorter than it was ends the copy early.
func TestSectionOfLess(t *testing.T) {
	s := mixed(t)
	r := share(t, open(t, t.TempDir()), s)
	rd, err := r.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	for i, leaf := range s.tree.Leaves {
		if e := s.tree.Entries[leaf.Entry]; e.Path != "big" || i == int(e.First) {
			continue
		}
		sec, err := rd.Section(i)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(r.Info().Path, "big"), leaf.Offset+10); err != nil {
			t.Fatal(err)
		}
		w := &sink{then: func() {}}
		if err := sec.CopyTo(w); !errors.Is(err, ErrChanged) || w.Len() > 10 {
			t.Errorf("%d bytes, %v", w.Len(), err)
		}
		return
	}
}
