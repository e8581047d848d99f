package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// lay makes files below a new folder; names that end in a slash are folders.
func lay(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(path, 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read lists what is below a folder, as lay takes it.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		switch {
		case err != nil || rel == ".":
			return err
		case d.IsDir():
			out[filepath.ToSlash(rel)+"/"] = ""
			return nil
		}
		data, err := os.ReadFile(path)
		out[filepath.ToSlash(rel)] = string(data)
		return err
	}))
	return out
}

func TestPutDirAndGetTo(t *testing.T) {
	b := newBench(t, "ann")
	files := map[string]string{"a.txt": "a", "sub/": "", "sub/run.sh": "#!", "sub/empty": "", "hollow/": "", "ro/": "", "ro/x": "x"}
	src := lay(t, files)
	must(t, os.Chmod(filepath.Join(src, "sub", "run.sh"), 0o755))
	must(t, os.Chtimes(filepath.Join(src, "a.txt"), birth, birth.Add(123456789)))
	must(t, os.Chmod(filepath.Join(src, "ro"), 0o555))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(src, "ro"), 0o755) })
	must(t, os.Symlink("a.txt", filepath.Join(src, "link")))
	must(t, os.WriteFile(filepath.Join(src, "sub", "bad\nname"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(src, "sub", "RUN.sh"), []byte("clash"), 0o644))

	var last Progress
	r, err := b.PutDir(ctx, src, "/p", PutOptions{Progress: func(p Progress) { last = p }})
	b.ok(err)
	if r.Files != 4 || r.Folders != 4 || r.Bytes != 7 || r.Unchanged != 0 || r.Copies != 2 {
		t.Errorf("the result is %+v", r)
	}
	var why []string
	for _, s := range r.Skipped {
		why = append(why, filepath.Base(s.Path))
	}
	slices.Sort(why)
	if !slices.Equal(why, []string{"bad\nname", "link", "run.sh"}) || r.SkippedCount != 3 {
		t.Errorf("left out are %q", why)
	}
	if last.TotalFiles != 6 || last.Secured != 0 {
		t.Errorf("the last progress is %+v", last)
	}

	dest := filepath.Join(t.TempDir(), "new", "place")
	r, err = b.GetTo(ctx, "/p", dest, GetOptions{Progress: func(p Progress) { last = p }})
	b.ok(err)
	delete(files, "sub/run.sh") // "RUN.sh" comes first in a folder
	files["sub/RUN.sh"] = "clash"
	if got := read(t, dest); !mapsEqual(got, files) {
		t.Errorf("got is %v, want %v", got, files)
	}
	if r.Files != 4 || last.Files != 4 || last.Bytes != last.TotalBytes || last.TotalFiles != 4 {
		t.Errorf("the result is %+v, the last progress %+v", r, last)
	}
	fi, err := os.Stat(filepath.Join(dest, "a.txt"))
	b.ok(err)
	if !fi.ModTime().Equal(birth.Add(123456789)) {
		t.Errorf("its time has become %v", fi.ModTime())
	}
	if fi, err = os.Stat(filepath.Join(dest, "ro")); err != nil || fi.Mode().Perm() != 0o555 {
		t.Errorf("the folder's mode has become %v, %v", fi.Mode(), err)
	}
	must(t, os.Chmod(filepath.Join(dest, "ro"), 0o755))

	// Again: nothing is read or written twice.
	writes := b.names.writes
	r, err = b.PutDir(ctx, src, "/p", PutOptions{})
	b.ok(err)
	if r.Files != 0 || r.Unchanged != 4 || b.names.writes != writes {
		t.Errorf("put again: %+v, %d records written", r, b.names.writes-writes)
	}
	r, err = b.GetTo(ctx, "/p", dest, GetOptions{})
	b.ok(err)
	if r.Files != 0 || r.Unchanged != 4 {
		t.Errorf("got again: %+v", r)
	}

	// A mode that changed makes a version of it, without reading.
	b.bytes.fail = errors.New("it was read")
	must(t, os.Chmod(filepath.Join(src, "a.txt"), 0o600))
	_, err = b.PutDir(ctx, src, "/p", PutOptions{})
	b.ok(err)
	if e, err := b.Stat("/p/a.txt"); err != nil || e.Mode != 0o600 {
		t.Errorf("its mode is %v, %v", e.Mode, err)
	}
	b.bytes.fail = nil

	// What is in the way stays, unless it may go.
	must(t, os.WriteFile(filepath.Join(dest, "a.txt"), []byte("mine"), 0o644))
	r, err = b.GetTo(ctx, "/p", dest, GetOptions{})
	b.ok(err)
	if len(r.Skipped) != 1 || !errors.Is(r.Skipped[0].Err, ErrExist) || read(t, dest)["a.txt"] != "mine" {
		t.Errorf("with something in the way: %+v", r)
	}
	_, err = b.GetTo(ctx, "/p", dest, GetOptions{Overwrite: true})
	b.ok(err)
	if got := read(t, dest); !mapsEqual(got, files) {
		t.Errorf("got is %v, want %v", got, files)
	}
}

func mapsEqual(a, b map[string]string) bool {
	return fmt.Sprint(a) == fmt.Sprint(b)
}

func TestOneFile(t *testing.T) {
	b := newBench(t, "ann")
	src := lay(t, map[string]string{"f": "text"})
	r, err := b.PutDir(ctx, filepath.Join(src, "f"), "/in/here", PutOptions{})
	b.ok(err)
	if r.Files != 1 {
		t.Errorf("the result is %+v", r)
	}
	dest := filepath.Join(t.TempDir(), "out")
	_, err = b.GetTo(ctx, "/in/here", dest, GetOptions{})
	b.ok(err)
	data, err := os.ReadFile(dest)
	b.ok(err)
	if string(data) != "text" {
		t.Errorf("got is %q", data)
	}
	must(t, os.WriteFile(dest, []byte("other"), 0o644))
	_, err = b.GetTo(ctx, "/in/here", dest, GetOptions{})
	b.want(err, ErrExist)
	_, err = b.GetTo(ctx, "/none", dest, GetOptions{})
	b.want(err, ErrNotExist)
	_, err = b.PutDir(ctx, filepath.Join(src, "none"), "/x", PutOptions{})
	b.want(err, fs.ErrNotExist)
	_, err = b.PutDir(ctx, src, "/in/here", PutOptions{})
	if err != nil && !errors.Is(err, ErrNotFolder) {
		t.Error(err)
	}
	b.shows(map[string]string{"/in/": "", "/in/here": "text"})
}

// TestOutside: a destination with links in it is not left through them.
func TestOutside(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.put("/p/sub/f", "text"))
	dest, outside := t.TempDir(), t.TempDir()
	must(t, os.Symlink(outside, filepath.Join(dest, "sub")))
	if _, err := b.GetTo(ctx, "/p", dest, GetOptions{Overwrite: true}); err == nil {
		t.Error("writing through a link is no error")
	}
	if got := read(t, outside); len(got) != 0 {
		t.Errorf("outside there is %v", got)
	}
}

// TestGetFails: files that cannot be read are told; the others come.
func TestGetFails(t *testing.T) {
	b := newBench(t, "ann")
	for i := range 30 {
		b.ok(b.put(fmt.Sprintf("/p/%02d", i), fmt.Sprint("text ", i)))
	}
	for i := range 15 {
		delete(b.bytes.durable, rootOf([]byte(fmt.Sprint("text ", 2*i))))
	}
	dest := t.TempDir()
	r, err := b.GetTo(ctx, "/p", dest, GetOptions{})
	if err == nil || !strings.Contains(err.Error(), "and 7 more") || r.Files != 15 {
		t.Errorf("%d files came, the error is %v", r.Files, err)
	}
	if got := read(t, dest); len(got) != 15 {
		t.Errorf("there are %d files", len(got))
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	_, err = b.GetTo(short, "/p", t.TempDir(), GetOptions{})
	b.want(err, context.Canceled)
}

// TestPutInGroups: a large put is written in groups of bounded size, and a put that fails leaves whole files only.
func TestPutInGroups(t *testing.T) {
	b := newBench(t, "ann")
	p := b.NewPut(PutOptions{})
	block := bytes.Repeat([]byte("x"), 90<<20)
	for i := range 4 {
		b.ok(p.File(ctx, fmt.Sprint("/big/", i), 0, birth, bytes.NewReader(block[:len(block)-i])))
	}
	for i := range 3 * putFiles {
		b.ok(p.File(ctx, fmt.Sprint("/small/", i), 0, time.Time{}, strings.NewReader(fmt.Sprint(i))))
	}
	r, err := p.Commit(ctx)
	b.ok(err)
	if r.Files != 4+3*putFiles || b.bytes.most > putBytes+len(block) || b.bytes.batches != 0 {
		t.Errorf("%d files, at most %d bytes in a batch, %d batches open", r.Files, b.bytes.most, b.bytes.batches)
	}
	u, err := b.Usage("/")
	b.ok(err)
	if u.Files != r.Files || u.Bytes != r.Bytes {
		t.Errorf("put was %+v, there is %+v", r, u)
	}
	if _, err := p.Commit(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("a second commit: %v", err)
	}
	b.want(p.File(ctx, "/x", 0, birth, strings.NewReader("")), ErrClosed)
}

// TestPutMeetsOther: what comes from another peer between reading a file and naming it does not lose anything.
func TestPutMeetsOther(t *testing.T) {
	a, b := newBench(t, "ann"), newBench(t, "bob")
	p := a.NewPut(PutOptions{})
	a.ok(p.File(ctx, "/x", 0, birth, strings.NewReader("file")))
	a.ok(p.File(ctx, "/y", 0, birth, strings.NewReader("new")))
	b.ok(b.put("/x/in", "folder"))
	b.ok(b.put("/y", "old"))
	meet(a.names, b.names)
	a.bytes.durable[rootOf([]byte("folder"))] = []byte("folder")
	r, err := p.Commit(ctx)
	a.want(err, ErrIsFolder)
	if r.Files != 1 {
		t.Errorf("%d files were put", r.Files)
	}
	a.shows(map[string]string{"/x/": "", "/x/in": "folder", "/y": "new"})
}

// TestPutOrder: groups get their names in order, whichever has its copies first, and what was added stays locked until
// there are names for it.
func TestPutOrder(t *testing.T) {
	b := newBench(t, "ann")
	first := make(chan struct{})
	b.bytes.held = func(pieces []piece.Piece) {
		if pieces[0].ID == rootOf([]byte("0")) {
			<-first // the first group waits until the second has all that it needs
			return
		}
		close(first)
	}
	b.names.onWrite = func() {
		b.bytes.mu.Lock()
		defer b.bytes.mu.Unlock()
		if b.bytes.batches == 0 {
			t.Error("names are written when nothing protects the bytes any more")
		}
	}
	p := b.NewPut(PutOptions{})
	for i := range putFiles + 2 {
		b.ok(p.File(ctx, fmt.Sprint("/d/", i), 0, birth, strings.NewReader(fmt.Sprint(i))))
	}
	_, err := p.Commit(ctx)
	b.ok(err)
	early, err := b.Stat("/d")
	b.ok(err)
	late, err := b.Stat(fmt.Sprint("/d/", putFiles+1))
	b.ok(err)
	if b.names.records[keyOf(early)].Time > b.names.records[keyOf(late)].Time {
		t.Error("a file was named before its folder")
	}
}

func keyOf(e Entry) string { return fileKey(paths.HashOf(e.Path), e.Version) }
