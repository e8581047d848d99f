package folder_test

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"

	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/folder/crash"
)

// TestFolders: what is true of every folder while nothing fails.
func TestFolders(t *testing.T) {
	t.Run("dir", func(t *testing.T) {
		dir, err := folder.Dir(t.TempDir(), "in")
		if err != nil {
			t.Fatal(err)
		}
		conform(t, dir)
	})
	t.Run("crash", func(t *testing.T) { conform(t, crash.New(1)) })
}

func conform(t *testing.T, dir folder.FS) {
	for _, name := range []string{"a", "in/a"} {
		f, err := dir.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		_, first := f.Write([]byte("one"))
		skip := f.Skip(2)
		want(t, dir, name, "one\x00\x00") // it can be read before it is synced or closed
		_, second := f.Write([]byte("two"))
		if err := errors.Join(first, skip, second, f.Sync(), f.Close(), dir.SyncFile(name)); err != nil {
			t.Fatal(err)
		}
		want(t, dir, name, "one\x00\x00two")
	}
	list(t, dir, "", folder.Info{Name: "a", Size: 8})
	list(t, dir, "in", folder.Info{Name: "a", Size: 8})

	r, err := dir.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if n, err := r.ReadAt(buf, 5); n != 3 || err != io.EOF || string(buf[:n]) != "two" {
		t.Errorf("%q, %v at the end", buf[:n], err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}

	put(t, dir, "in/b", "new")
	if err := errors.Join(dir.Rename("in/b", "a"), dir.Remove("in/a"), dir.Sync(""), dir.Sync("in")); err != nil {
		t.Fatal(err)
	}
	want(t, dir, "a", "new")
	list(t, dir, "in")
	put(t, dir, "a", "")
	want(t, dir, "a", "")

	_, err = dir.Open("in/b")
	for _, err := range []error{err, dir.Rename("in/b", "c"), dir.Remove("in/b"), dir.SyncFile("in/b")} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of a file that is not there: %v", err)
		}
	}
}

func put(t *testing.T, dir folder.FS, name, data string) {
	t.Helper()
	f, err := dir.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write([]byte(data))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, dir folder.FS, name, data string) {
	t.Helper()
	for _, most := range []int{0, 2, len(data), len(data) + 1} {
		got, err := folder.ReadFile(dir, name, int64(most))
		if err != nil || string(got) != data[:min(most, len(data))] {
			t.Errorf("%d bytes of %s: %q, %v; it has %q", most, name, got, err, data)
		}
	}
}

func list(t *testing.T, dir folder.FS, in string, want ...folder.Info) {
	t.Helper()
	got, err := dir.List(in)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q has %v, %v; it should have %v", in, got, err, want)
	}
}
