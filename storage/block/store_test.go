package block

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-os/shoal/storage/chunk"
)

// share records a sample that lies in a fresh folder.
func share(t testing.TB, st *Store, s sample) *Root {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shared")
	s.put(t, path)
	r, err := st.AddIndexed(s.index(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// download finishes a download of a sample to path.
func download(t testing.TB, st *Store, s sample, path string) *Root {
	t.Helper()
	r := s.begin(t, st, path)
	s.fill(t, r)
	if err := r.Finish(false); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	st := open(t, dir)
	indexed, complete := mixed(t), makeSample(t, map[string]string{"": noise(3, 2<<20+1)})
	partly := makeSample(t, map[string]string{"a": noise(4, 10<<20), "b": "b"})
	raw := makeSample(t, map[string]string{"": "a raw root"})
	out := t.TempDir()
	share(t, st, indexed)
	download(t, st, complete, filepath.Join(out, "complete"))
	download(t, st, raw, filepath.Join(out, "raw"))
	p := partly.begin(t, st, filepath.Join(out, "partly"))
	partly.fill(t, p, 0, 3, 9)
	before := infos(st)
	st.Close()

	st = open(t, dir)
	if after := infos(st); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("before %v\nafter  %v", before, after)
	}
	for _, s := range []sample{indexed, complete, raw} {
		s.readable(t, s.root(t, st))
		if have, whole := s.root(t, st).Have(); !whole || have.Count() != len(s.leaves) {
			t.Errorf("%d leaves of a whole root", have.Count())
		}
	}
	r := partly.root(t, st)
	if have, whole := r.Have(); whole || have.Count() != 3 || !have.Has(0) || !have.Has(3) || !have.Has(9) {
		t.Errorf("the partial has %d leaves", have.Count())
	}
	if !r.Trusted() || r.Suspect() {
		t.Error("a partial of this boot is not trusted")
	}
	partly.fill(t, r)
	if err := r.Finish(false); err != nil {
		t.Fatal(err)
	}
	partly.check(t, filepath.Join(out, "partly"))
	raw.check(t, filepath.Join(out, "raw"))
}

// infos lists what a store holds.
func infos(st *Store) (out []Info) {
	for _, r := range st.Roots() {
		out = append(out, r.Info())
	}
	return out
}

// A raw root's size is known only once its leaf is here. A crash before Finish
// must not leave a leaf that nobody can read.
func TestRawRootSurvivesCrashBeforeFinish(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	s := makeSample(t, map[string]string{"": "raw"})
	s.fill(t, s.begin(t, open(t, dir), out))

	r := s.root(t, open(t, dir))
	s.readable(t, r)
	if err := r.Finish(false); err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	st := open(t, dir)
	s := mixed(t)
	r := share(t, st, s)
	if err := st.Remove(s.tree.Root); err != nil {
		t.Fatal(err)
	}
	s.check(t, r.Info().Path)
	if err := st.Remove(s.tree.Root); !errors.Is(err, ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	if n := len(open(t, dir).Roots()); n != 0 {
		t.Errorf("%d records after removal", n)
	}
}

// A record that a share replaces, or that is withdrawn, belongs to a download
// that still runs: it ends well and disturbs nobody.
func TestDetachedDownloadEndsWell(t *testing.T) {
	for _, how := range []string{"replaced", "removed"} {
		t.Run(how, func(t *testing.T) {
			dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
			st, s := open(t, dir), mixed(t)
			r := s.begin(t, st, out)
			tree, err := r.Tree() // the download holds it
			if err != nil {
				t.Fatal(err)
			}
			s.fill(t, r, 0)
			want := 0
			if how == "replaced" {
				share(t, st, s)
				want = 1
			} else if err := st.Remove(s.tree.Root); err != nil {
				t.Fatal(err)
			}
			s.fill(t, r)
			if err := r.Finish(false); err != nil {
				t.Fatal(err)
			}
			if len(tree.Leaves) != len(s.leaves) {
				t.Error("tree changed")
			}
			s.check(t, out)
			roots := open(t, dir).Roots()
			if len(roots) != want || want == 1 && roots[0].Info().State != Indexed {
				t.Errorf("records: %v", infos(open(t, dir)))
			}
		})
	}
}

// Each file of a record, broken in each way: that record is set aside or its
// bytes are not believed, and all others open.
func TestDamagedRecords(t *testing.T) {
	breaks := map[string]func(path string) error{
		"missing": os.Remove,
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"short": func(p string) error {
			fi, err := os.Stat(p)
			return errors.Join(err, os.Truncate(p, fi.Size()/2))
		},
		"flipped": flip,
		"longer":  func(p string) error { return appendTo(p, "\x01") },
		"folder":  func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
	}
	for _, state := range []State{Indexed, Complete, Partial} {
		for _, file := range []string{metaFile, treeFile, statFile, haveFile} {
			if (file == haveFile) != (state == Partial) && file != metaFile && file != treeFile {
				continue
			}
			for how, damage := range breaks {
				t.Run(fmt.Sprintf("%s/%s/%s", state, file, how), func(t *testing.T) {
					t.Parallel()
					testDamage(t, state, file, how, damage)
				})
			}
		}
	}
}

func testDamage(t *testing.T, state State, file, how string, damage func(string) error) {
	dir := t.TempDir()
	st := open(t, dir)
	s, other := mixed(t), makeSample(t, map[string]string{"": "other"})
	share(t, st, other)
	out := filepath.Join(t.TempDir(), "out")
	switch state {
	case Indexed:
		share(t, st, s)
	case Complete:
		download(t, st, s, out)
	case Partial:
		s.fill(t, s.begin(t, st, out), 0, 1)
	}
	st.Close()
	if err := damage(filepath.Join(s.record(dir), file)); err != nil {
		t.Fatal(err)
	}
	st = open(t, dir)
	other.readable(t, other.root(t, st))
	r, opened := st.Root(s.tree.Root)
	switch {
	case file == haveFile && (how == "missing" || how == "empty" || how == "short"):
		// No more is claimed than is written there.
		if !opened || r.HaveCount() > 2 {
			t.Errorf("opened %v", opened)
		}
	case file == haveFile && how == "flipped":
		// One byte holds all bits of this sample: the flip sets spare ones.
		fallthrough
	case file != treeFile:
		if opened || st.Damaged()[s.tree.Root.String()] == nil {
			t.Errorf("opened %v, damaged %v", opened, st.Damaged())
		}
	default:
		// Read when somebody asks for it.
		if _, err := r.NewReader(); !errors.Is(err, ErrDamaged) {
			t.Errorf("reader: %v", err)
		}
	}
	if _, err := os.Lstat(s.record(dir)); err != nil {
		t.Errorf("a damaged record was deleted: %v", err)
	}
	// Sharing the same again mends it.
	r = share(t, st, s)
	s.readable(t, r)
	if len(st.Damaged()) != 0 {
		t.Errorf("still damaged: %v", st.Damaged())
	}
}

// flip inverts the highest bit of a file's middle byte.
func flip(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 0x80
	return os.WriteFile(path, data, 0o600)
}

func appendTo(path, s string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}

// Every single bit of the JSON part counts: a wrong count or path is never believed.
func TestMetaChecksum(t *testing.T) {
	dir := t.TempDir()
	st := open(t, dir)
	s := makeSample(t, map[string]string{"a": "12345678"})
	share(t, st, s)
	st.Close()
	path := filepath.Join(s.record(dir), metaFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if i == len(good)-1 {
			continue // the line's end
		}
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if _, err := decodeMeta(bad); err == nil {
			t.Errorf("byte %d of %q changed unnoticed", i, good)
		}
	}
}

// What is no record of ours, or lies under another's name, is left alone.
func TestStrangersInTheFolder(t *testing.T) {
	dir := t.TempDir()
	st := open(t, dir)
	s := mixed(t)
	share(t, st, s)
	st.Close()
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "a file"), []byte("x"), 0o600),
		os.Mkdir(filepath.Join(dir, "a folder"), 0o700),
		os.CopyFS(filepath.Join(dir, chunk.SumRaw([]byte("other")).String()), os.DirFS(s.record(dir))),
	); err != nil {
		t.Fatal(err)
	}
	st = open(t, dir)
	if n := len(st.Roots()); n != 1 {
		t.Errorf("%d roots", n)
	}
	if n := len(st.Damaged()); n != 3 {
		t.Errorf("damaged: %v", st.Damaged())
	}
	s.readable(t, s.root(t, st))
}

// A crash between any two steps of replacing a record leaves the old one or the
// new one, whole.
func TestCrashWhileAdding(t *testing.T) {
	s := mixed(t)
	fresh, final, aside := newPrefix, "", oldPrefix
	for name, c := range map[string]struct {
		from map[string]string // record folder: "old", "new" or "half"
		want string            // which stands afterwards
	}{
		"first, half written":         {map[string]string{fresh: "half"}, ""},
		"first, written, not renamed": {map[string]string{fresh: "new"}, ""},
		"replacing, half written":     {map[string]string{fresh: "half", final: "old"}, "old"},
		"replacing, written":          {map[string]string{fresh: "new", final: "old"}, "old"},
		"old moved aside":             {map[string]string{fresh: "new", aside: "old"}, "old"},
		"new in place":                {map[string]string{final: "new", aside: "old"}, "new"},
		"old half removed":            {map[string]string{final: "new", aside: "half"}, "new"},
		"left by an earlier crash":    {map[string]string{fresh: "half", aside: "half", final: "old"}, "old"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for prefix, what := range c.from {
				layRecord(t, s, filepath.Join(dir, prefix+s.tree.Root.String()), what)
			}
			st := open(t, dir)
			r, ok := st.Root(s.tree.Root)
			if ok != (c.want != "") || ok && r.Info().Name != c.want {
				t.Fatalf("found %v, want %q; damaged: %v", infos(st), c.want, st.Damaged())
			}
			if ok {
				if _, err := r.Tree(); err != nil {
					t.Error(err)
				}
			}
			names, _ := os.ReadDir(dir)
			if len(names) != len(st.Roots()) {
				t.Errorf("left over: %v", names)
			}
			share(t, st, s) // and all is well
		})
	}
}

// layRecord writes a record whose Name is what to path, or half of one.
func layRecord(t *testing.T, s sample, path, what string) {
	t.Helper()
	scratch := t.TempDir()
	st := open(t, scratch)
	user := filepath.Join(t.TempDir(), "user")
	s.put(t, user)
	x := s.index(t, user)
	x.Name = what
	if _, err := st.AddIndexed(x); err != nil {
		t.Fatal(err)
	}
	st.Close()
	if err := os.Rename(s.record(scratch), path); err != nil {
		t.Fatal(err)
	}
	if what == "half" {
		if err := os.Remove(filepath.Join(path, metaFile)); err != nil {
			t.Fatal(err)
		}
	}
}

// A replacement that cannot be put in place leaves the old record.
func TestSwapFailureKeepsOld(t *testing.T) {
	dir := t.TempDir()
	st := open(t, dir)
	s := mixed(t)
	share(t, st, s)
	final := s.record(dir)
	if err := st.swap(filepath.Join(dir, "not there"), final, filepath.Join(dir, oldPrefix+"x")); err == nil {
		t.Fatal("swapped with nothing")
	}
	st.Close()
	st = open(t, dir)
	s.readable(t, s.root(t, st))
}

func TestMarkPersists(t *testing.T) {
	dir := t.TempDir()
	st := open(t, dir)
	s := makeSample(t, map[string]string{"": noise(5, 20<<20)})
	r := s.begin(t, st, filepath.Join(t.TempDir(), "out"))
	steps := []struct {
		mark, unmark []int
		want         []int
	}{
		{mark: []int{0}, want: []int{0}},
		{mark: []int{19, 7, 8}, want: []int{0, 7, 8, 19}},
		{mark: []int{7, 8}, want: []int{0, 7, 8, 19}},
		{unmark: []int{8, 0, 3}, want: []int{7, 19}},
		{mark: nil, want: []int{7, 19}},
	}
	for i, step := range steps {
		if err := r.Mark(step.mark...); err != nil {
			t.Fatal(err)
		}
		if step.unmark != nil {
			if err := r.Unmark(step.unmark...); err != nil {
				t.Fatal(err)
			}
		}
		again := s.root(t, open(t, dir)) // as after kill -9
		have, _ := again.Have()
		if have.Count() != len(step.want) || r.HaveCount() != len(step.want) {
			t.Errorf("step %d: %d leaves on disk, %d in memory, want %v", i, have.Count(), r.HaveCount(), step.want)
		}
		for _, l := range step.want {
			if !have.Has(l) || !r.Has(l) {
				t.Errorf("step %d: leaf %d is missing", i, l)
			}
		}
	}
	told, _ := r.Have()
	if err := r.Mark(1, 2, 3); err != nil {
		t.Fatal(err)
	}
	if runs := r.HaveSince(told, 10); len(runs) != 1 || runs[0].First != 1 || runs[0].Count != 3 {
		t.Errorf("since: %v", runs)
	}
}
