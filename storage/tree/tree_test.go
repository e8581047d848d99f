package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
)

var ctx = context.Background()

func TestPutAndLook(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.put("/docs/deep/one.txt", "one"))
	b.ok(b.put("docs//two.txt", "two"))
	b.ok(b.put("/empty", ""))
	b.shows(map[string]string{"/docs/": "", "/docs/deep/": "", "/docs/deep/one.txt": "one", "/docs/two.txt": "two", "/empty": ""})

	e, err := b.Stat("/docs/two.txt")
	b.ok(err)
	if e.Name != "two.txt" || e.Size() != 3 || e.Author != b.names.self || e.AuthorName != "ann" || e.Copies != 3 || e.Conflict || e.Mode != 0o644 {
		t.Errorf("stat says %+v", e)
	}
	if len(e.File.Pieces) != 1 || e.File.Pieces[0].ID != chunk.SumRaw([]byte("two")) {
		t.Errorf("its pieces are %v", e.File.Pieces)
	}
	e, err = b.Stat("/")
	b.ok(err)
	if !e.IsFolder() || e.Children != 2 || e.Name != "" || !e.Mode.IsDir() {
		t.Errorf("the root is %+v", e)
	}
	list, err := b.List("/docs")
	b.ok(err)
	if len(list) != 2 || list[0].Path != "/docs/deep" || list[1].Path != "/docs/two.txt" || list[0].Children != 1 {
		t.Errorf("in the folder is %+v", list)
	}
	u, err := b.Usage("/docs")
	b.ok(err)
	if u.Files != 2 || u.Folders != 1 || u.Bytes != 6 || u.Wanted != 18 {
		t.Errorf("its usage is %+v", u)
	}
	_, err = b.Stat("/nothing")
	b.want(err, ErrNotExist)
	if !os.IsNotExist(err) {
		t.Error("os.IsNotExist does not know the error")
	}
	_, err = b.List("/empty")
	b.want(err, ErrNotFolder)
	_, err = b.OpenRead(ctx, "/docs")
	b.want(err, ErrIsFolder)
	_, err = b.Stat("/a/../b")
	b.want(err, ErrPath)
}

func TestNames(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.put("/Photos/a.jpg", "a"))
	b.want(b.put("/photos/b.jpg", "b"), ErrCase)
	b.want(b.put("/Photos/A.JPG", "b"), ErrCase)
	b.want(b.put("/Photos/con", "b"), ErrName)
	b.want(b.put("/Photos/a:b", "b"), ErrName)
	b.want(b.put("/Photos/dot.", "b"), ErrName)
	b.want(b.put("/Photos/a\tb", "b"), ErrPath)
	b.want(b.put("/Photos", "b"), ErrIsFolder)
	b.want(b.put("/Photos/a.jpg/b", "b"), ErrNotFolder)
	b.want(b.Mkdir(ctx, "/PHOTOS", MkdirOptions{}), ErrCase)
	b.want(b.Mkdir(ctx, "/nul", MkdirOptions{}), ErrName)
	b.want(b.put("/"+strings.Repeat("a", 256), "b"), ErrPath)
	b.ok(b.put("/e\u0301.txt", "nfd"))
	b.ok(b.put("/\u00e9.txt", "nfc"))
	b.shows(map[string]string{"/Photos/": "", "/Photos/a.jpg": "a", "/\u00e9.txt": "nfc"})
	if text, err := b.cat("/e\u0301.txt"); err != nil || text != "nfc" {
		t.Errorf("read by its other spelling it is %q, %v", text, err)
	}
	p := b.NewPut(PutOptions{AnyName: true})
	for _, path := range []string{"/photos/b.jpg", "/aux", "/x", "/X"} {
		b.ok(p.File(ctx, path, 0, birth, strings.NewReader("any")))
	}
	_, err := p.Commit(ctx)
	b.ok(err)
	p = b.NewPut(PutOptions{})
	b.ok(p.File(ctx, "/new/File", 0, birth, strings.NewReader("1")))
	b.want(p.File(ctx, "/new/file", 0, birth, strings.NewReader("2")), ErrCase)
	b.want(p.File(ctx, "/New/other", 0, birth, strings.NewReader("2")), ErrCase)
	b.want(p.File(ctx, "/new", 0, birth, strings.NewReader("2")), ErrIsFolder)
	b.want(p.File(ctx, "/new/File/x", 0, birth, strings.NewReader("2")), ErrNotFolder)
	b.ok(p.File(ctx, "/new/File", 0, birth, strings.NewReader("3")))
	_, err = p.Commit(ctx)
	b.ok(err)
	if text, err := b.cat("/new/File"); err != nil || text != "3" {
		t.Errorf("of two files put at one path the first stayed: %q, %v", text, err)
	}
	if h, err := b.History("/new/File"); err != nil || len(h) != 1 {
		t.Errorf("its history is %v, %v", h, err)
	}
}

// TestOtherForm: a path that another peer wrote in NFD is found by its NFC form.
func TestOtherForm(t *testing.T) {
	b := newBench(t, "ann")
	other := newBench(t, "bob")
	d := other.fileDraft("/caf\u0065\u0301", fileOf64(t, other, "x"), 0o644, birth, 3)
	other.ok(other.save(ctx, []draft{d}))
	meet(b.names, other.names)
	b.bytes = other.bytes
	if e, err := b.Stat("/caf\u00e9"); err != nil || e.Path != "/cafe\u0301" {
		t.Errorf("found is %q, %v", e.Path, err)
	}
	b.want(b.put("/CAFÉ", "y"), ErrCase)
	b.ok(b.Remove(ctx, "/caf\u00e9", false))
	b.shows(map[string]string{})
}

func TestChanges(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.Mkdir(ctx, "/d", MkdirOptions{}))
	b.want(b.Mkdir(ctx, "/d", MkdirOptions{}), ErrExist)
	b.ok(b.Mkdir(ctx, "/d", MkdirOptions{Parents: true}))
	b.want(b.Mkdir(ctx, "/x/y", MkdirOptions{}), ErrNotExist)
	b.ok(b.Mkdir(ctx, "/x/y", MkdirOptions{Parents: true, Mode: 0o700}))
	b.ok(b.put("/d/f", "f"))
	b.ok(b.put("/d/g", "g"))
	b.want(b.Remove(ctx, "/d", false), ErrNotEmpty)
	b.want(b.Remove(ctx, "/", true), ErrPath)
	b.want(b.Remove(ctx, "/no", true), ErrNotExist)
	b.ok(b.Remove(ctx, "/x", true))

	b.ok(b.Move(ctx, "/d/f", "/d/h", false))
	b.want(b.Move(ctx, "/d/h", "/d/g", false), ErrExist)
	b.want(b.Move(ctx, "/d", "/d/e", false), ErrInside)
	b.want(b.Move(ctx, "/d/g", "/d", true), ErrInside)
	b.want(b.Move(ctx, "/d/g", "/no/g", false), ErrNotExist)
	b.ok(b.Move(ctx, "/d/h", "/d/g", true))
	b.shows(map[string]string{"/d/": "", "/d/g": "f"})
	b.ok(b.Move(ctx, "/d/g", "/d/G", false))
	b.ok(b.Move(ctx, "/d", "/D", false))
	b.shows(map[string]string{"/D/": "", "/D/G": "f"})
	b.ok(b.Copy(ctx, "/D", "/e", false))
	b.ok(b.put("/e/more", "m"))
	b.ok(b.put("/plain", "p"))
	b.ok(b.Copy(ctx, "/plain", "/e", true))
	b.shows(map[string]string{"/D/": "", "/D/G": "f", "/e": "p", "/plain": "p"})
	b.ok(b.Copy(ctx, "/D", "/e", true))
	b.shows(map[string]string{"/D/": "", "/D/G": "f", "/e/": "", "/e/G": "f", "/plain": "p"})

	b.ok(b.SetTimes(ctx, "/plain", birth.Add(time.Hour)))
	b.ok(b.SetMode(ctx, "/plain", 0o600))
	b.ok(b.SetCopies(ctx, "/", 5))
	e, err := b.Stat("/plain")
	b.ok(err)
	if !e.ModTime.Equal(birth.Add(time.Hour)) || e.Mode != 0o600 || e.Copies != 5 {
		t.Errorf("it has become %+v", e)
	}
	if n := b.names.writes; true {
		b.ok(b.SetMode(ctx, "/plain", 0o600))
		b.ok(b.SetCopies(ctx, "/", 5))
		if b.names.writes != n {
			t.Error("changing nothing made a version")
		}
	}
}

func TestHistoryAndRestore(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.put("/d/f", "1"))
	b.ok(b.put("/d/f", "2"))
	b.ok(b.put("/d/f", "3"))
	h, err := b.History("/d/f")
	b.ok(err)
	if len(h) != 3 || h[0].Size() != 1 || h[2].File.Root != chunk.SumRaw([]byte("1")) {
		t.Fatalf("the history is %+v", h)
	}
	n, err := b.Restore(ctx, "/d/f", ID{})
	if text, _ := b.cat("/d/f"); err != nil || n != 1 || text != "2" {
		t.Errorf("restored is %q, %d, %v", text, n, err)
	}
	_, err = b.Restore(ctx, "/d/f", h[2].Version)
	b.ok(err)
	b.shows(map[string]string{"/d/": "", "/d/f": "1"})
	_, err = b.Restore(ctx, "/d/f", ID{1})
	b.want(err, ErrNotExist)
	_, err = b.Restore(ctx, "/none", ID{})
	b.want(err, ErrNotExist)

	b.ok(b.put("/d/sub/g", "g"))
	b.ok(b.put("/d/early", "e"))
	b.ok(b.Remove(ctx, "/d/early", false))
	b.ok(b.Remove(ctx, "/d", true))
	b.shows(map[string]string{})
	h, err = b.History("/d/f")
	b.ok(err)
	if h[0].Kind != Removed {
		t.Errorf("the latest is %v", h[0].Kind)
	}
	n, err = b.Restore(ctx, "/d", ID{})
	b.ok(err)
	if n != 4 {
		t.Errorf("%d things came back, want 4", n)
	}
	b.shows(map[string]string{"/d/": "", "/d/f": "1", "/d/sub/": "", "/d/sub/g": "g"})
	_, err = b.Restore(ctx, "/d", ID{})
	b.ok(err)
	b.shows(map[string]string{"/d/": "", "/d/f": "1", "/d/sub/": "", "/d/sub/g": "g", "/d/early": "e"})
	_, err = b.Restore(ctx, "/d", ID{})
	b.want(err, ErrNotExist)

	// What was removed alone comes back into a folder that is gone as well.
	b.ok(b.Remove(ctx, "/d", true))
	_, err = b.Restore(ctx, "/d/sub/g", ID{})
	b.ok(err)
	b.shows(map[string]string{"/d/": "", "/d/sub/": "", "/d/sub/g": "g"})
}

func TestExpiry(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.put("/f", "1"))
	b.ok(b.put("/f", "2"))
	b.ok(b.put("/gone", "3"))
	b.ok(b.Remove(ctx, "/gone", false))
	expire := func() int {
		n, err := b.Expire(ctx, b.names.time())
		b.ok(err)
		return n
	}
	b.names.pass(Keep - time.Minute)
	if n := expire(); n != 0 {
		t.Errorf("%d versions went too early", n)
	}
	b.names.pass(2 * time.Minute)
	if n := expire(); n != 2 {
		t.Errorf("%d versions went, want the old one and the removed one", n)
	}
	if n := expire(); n != 1 {
		t.Errorf("%d versions went, want the removal", n)
	}
	if n := expire(); n != 0 || b.names.live() != 1 {
		t.Errorf("%d more went, %d are left", n, b.names.live())
	}
	live := b.Live()
	if live(chunk.SumRaw([]byte("1"))) || !live(chunk.SumRaw([]byte("2"))) || live(chunk.SumRaw([]byte("3"))) {
		t.Error("what is live is not what is named")
	}
	b.shows(map[string]string{"/f": "2"})
	_, err := b.History("/gone")
	b.want(err, ErrNotExist)
}

// TestManyWrites: a file that is saved again and again does not fill the directory.
func TestManyWrites(t *testing.T) {
	b := newBench(t, "ann")
	for i := range 200 {
		b.ok(b.put("/f", fmt.Sprint(i)))
		b.names.pass(time.Second)
	}
	h, err := b.History("/f")
	b.ok(err)
	if len(h) > 33 || b.names.live() != len(h) {
		t.Errorf("%d versions and %d records are kept", len(h), b.names.live())
	}
	b.ok(b.Remove(ctx, "/f", false))
	_, err = b.Restore(ctx, "/f", ID{})
	b.ok(err)
	b.shows(map[string]string{"/f": "199"})
}

func TestFind(t *testing.T) {
	b := newBench(t, "ann")
	for _, path := range []string{"/a.txt", "/d/a.txt", "/d/e/a.txt", "/d/e/b.jpg", "/d/e/f/[x].txt", "/q/a.txt"} {
		b.ok(b.put(path, path))
	}
	for _, c := range []struct {
		dir, pattern string
		want         []string
	}{
		{"/", "a.txt", []string{"/a.txt", "/d/a.txt", "/d/e/a.txt", "/q/a.txt"}},
		{"/d", "*.txt", []string{"/d/a.txt", "/d/e/a.txt", "/d/e/f/[x].txt"}},
		{"/", "/*.txt", []string{"/a.txt"}},
		{"/", "*/a.txt", []string{"/d/a.txt", "/q/a.txt"}},
		{"/", "/d/**/a.txt", []string{"/d/a.txt", "/d/e/a.txt"}},
		{"/", "d/**", []string{"/d/a.txt", "/d/e", "/d/e/a.txt", "/d/e/b.jpg", "/d/e/f", "/d/e/f/[x].txt"}},
		{"/", `**/e/**/\[x\].txt`, []string{"/d/e/f/[x].txt"}},
		{"/", "**/**/f", []string{"/d/e/f"}},
		{"/", "[ab].*", []string{"/a.txt", "/d/a.txt", "/d/e/a.txt", "/d/e/b.jpg", "/q/a.txt"}},
		{"/", "nothing", nil},
	} {
		var got []string
		for e, err := range b.Find(c.dir, c.pattern) {
			b.ok(err)
			got = append(got, e.Path)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s in %s finds %q, want %q", c.pattern, c.dir, got, c.want)
		}
	}
	for _, bad := range []string{"", "/", "[", "a/[b", strings.Repeat("*", 5000)} {
		for _, err := range b.Find("/", bad) {
			b.want(err, ErrPattern)
		}
	}
}

func TestReading(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.put("/f", "0123456789"))
	f, err := b.OpenRead(ctx, "/f")
	b.ok(err)
	b.ok(b.put("/f", "else"))
	var buf [4]byte
	if n, err := f.ReadAt(buf[:], 8); n != 2 || err != io.EOF {
		t.Errorf("at the end %d bytes, %v", n, err)
	}
	if n, err := f.ReadAt(buf[:], 6); n != 4 || err != nil {
		t.Errorf("before it %d bytes, %v", n, err)
	}
	if _, err := f.ReadAt(buf[:], -1); err == nil {
		t.Error("read before the beginning")
	}
	if at, err := f.Seek(-3, io.SeekEnd); at != 7 || err != nil {
		t.Errorf("sought to %d, %v", at, err)
	}
	rest, err := io.ReadAll(f)
	if string(rest) != "789" || err != nil {
		t.Errorf("the rest is %q, %v", rest, err)
	}
	if _, err := f.Seek(-1, io.SeekStart); err == nil {
		t.Error("sought before the beginning")
	}
	b.ok(f.Close())
	b.ok(f.Close())
}

// TestForgedSize: a record that promises more bytes than its root has does not make readers wait, or read on.
func TestForgedSize(t *testing.T) {
	b := newBench(t, "ann")
	f := fileOf64(t, b, "short")
	f.Size, f.Pieces[0].Size = 5000, 5000
	b.ok(b.save(ctx, []draft{b.fileDraft("/f", f, 0o644, birth, 3)}))
	if text, err := b.cat("/f"); !errors.Is(err, io.ErrUnexpectedEOF) || text != "short" {
		t.Errorf("read is %q, %v", text, err)
	}
	dest := t.TempDir()
	if _, err := b.GetTo(ctx, "/", dest, GetOptions{}); err == nil {
		t.Error("getting it was no error")
	}
	if list, _ := os.ReadDir(dest); len(list) > 0 {
		t.Errorf("left is %v", list)
	}
}

// fileOf64 adds bytes without a name.
func fileOf64(t testing.TB, b *bench, text string) (f piece.File) {
	batch := b.bytes.NewBatch()
	defer batch.Close()
	f, err := batch.Add(ctx, strings.NewReader(text))
	b.ok(err)
	b.ok(batch.Commit())
	return f
}

func TestConflict(t *testing.T) {
	a, b := newBench(t, "ann"), newBench(t, "bob")
	a.ok(a.put("/f.txt", "old"))
	meet(a.names, b.names)
	a.names.pass(time.Second)
	a.ok(a.put("/f.txt", "from ann"))
	b.names.pass(2 * time.Second)
	b.ok(b.put("/f.txt", "from bob"))
	meet(a.names, b.names)
	maps.Copy(a.bytes.durable, b.bytes.durable)
	maps.Copy(b.bytes.durable, a.bytes.durable)
	list, err := a.List("/")
	a.ok(err)
	if len(list) != 2 || !list[0].Conflict || list[0].Of != "/f.txt" || list[0].AuthorName != "ann" {
		t.Fatalf("listed is %+v", list)
	}
	other := list[0].Path
	if !strings.HasPrefix(other, "/f (conflict ann 2026-11-23 ") || !strings.HasSuffix(other, ").txt") {
		t.Errorf("the conflict is called %q", other)
	}
	want := map[string]string{"/f.txt": "from bob", other: "from ann"}
	a.shows(want)
	b.shows(want)

	// Saving the file again leaves the conflict where it is; it was not looked at.
	b.ok(b.put("/f.txt", "bob again"))
	want["/f.txt"] = "bob again"
	b.shows(want)
	_, err = b.Stat(other)
	b.ok(err)
	b.want(b.SetMode(ctx, other, 0o600), ErrConflict)
	if h, err := b.History(other); err != nil || len(h) != 4 {
		t.Errorf("its history has %d versions, %v", len(h), err)
	}

	for name, f := range map[string]func(c *bench) error{
		"removed":     func(c *bench) error { return c.Remove(ctx, other, false) },
		"moved":       func(c *bench) error { return c.Move(ctx, other, "/ann.txt", false) },
		"written":     func(c *bench) error { return c.put(other, "edited") },
		"over it":     func(c *bench) error { return c.Move(ctx, other, "/f.txt", true) },
		"under it":    func(c *bench) error { return c.Move(ctx, "/f.txt", other, true) },
		"name goes":   func(c *bench) error { return c.Remove(ctx, "/f.txt", false) },
		"name moves":  func(c *bench) error { return c.Move(ctx, "/f.txt", "/bob.txt", false) },
		"copied":      func(c *bench) error { return c.Copy(ctx, other, "/copy.txt", false) },
		"many copies": func(c *bench) error { return c.SetCopies(ctx, "/", 7) },
	} {
		c := newBench(t, "cat")
		meet(b.names, c.names)
		maps.Copy(c.bytes.durable, b.bytes.durable)
		c.names.pass(time.Hour)
		if err := f(c); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c.shows(map[string]map[string]string{
			"removed":     {"/f.txt": "bob again"},
			"moved":       {"/f.txt": "bob again", "/ann.txt": "from ann"},
			"written":     {"/f.txt": "bob again", other: "edited"},
			"over it":     {"/f.txt": "from ann"},
			"under it":    {other: "bob again"},
			"name goes":   {"/f.txt": "from ann"},
			"name moves":  {"/f.txt": "from ann", "/bob.txt": "bob again"},
			"copied":      {"/f.txt": "bob again", other: "from ann", "/copy.txt": "from ann"},
			"many copies": {"/f.txt": "bob again", other: "from ann"},
		}[name])
		if t.Failed() {
			t.Fatalf("so it is when: %s", name)
		}
	}
}

func TestSameContentsNoConflict(t *testing.T) {
	a, b := newBench(t, "ann"), newBench(t, "bob")
	a.ok(a.put("/d/f", "same"))
	b.ok(b.put("/d/f", "same"))
	meet(a.names, b.names)
	a.shows(map[string]string{"/d/": "", "/d/f": "same"})
	a.ok(a.Remove(ctx, "/d", true))
	a.shows(map[string]string{})
}

// TestApart: one removes a folder while another puts something into it.
func TestApart(t *testing.T) {
	a, b := newBench(t, "ann"), newBench(t, "bob")
	a.ok(a.put("/d/f", "f"))
	meet(a.names, b.names)
	a.ok(a.Remove(ctx, "/d", true))
	b.ok(b.put("/d/g", "g"))
	meet(a.names, b.names)
	b.shows(map[string]string{"/d/": "", "/d/g": "g"})
}

func TestCreate(t *testing.T) {
	b := newBench(t, "ann")
	b.ok(b.Mkdir(ctx, "/d", MkdirOptions{}))
	w, err := b.Create(ctx, "/d/f", CreateOptions{Mode: 0o640})
	b.ok(err)
	for range 3 {
		_, err = io.WriteString(w, "part ")
		b.ok(err)
	}
	_, err = b.Stat("/d/f")
	b.want(err, ErrNotExist)
	b.ok(w.Close())
	b.ok(w.Close())
	w.Abort()
	b.shows(map[string]string{"/d/": "", "/d/f": "part part part "})

	_, err = b.Create(ctx, "/d/f", CreateOptions{Exclusive: true})
	b.want(err, ErrExist)
	_, err = b.Create(ctx, "/d", CreateOptions{})
	b.want(err, ErrIsFolder)
	_, err = b.Create(ctx, "/no/f", CreateOptions{})
	b.want(err, ErrNotExist)
	_, err = b.Create(ctx, "/d/F", CreateOptions{})
	b.want(err, ErrCase)

	w, err = b.Create(ctx, "/d/f", CreateOptions{})
	b.ok(err)
	_, _ = io.WriteString(w, "never seen")
	w.Abort()
	if err := w.Close(); err == nil {
		t.Error("closing what was aborted is no error")
	}
	w, err = b.Create(ctx, "/d/f", CreateOptions{})
	b.ok(err)
	b.ok(w.Close())
	b.shows(map[string]string{"/d/": "", "/d/f": ""})
	e, err := b.Stat("/d/f")
	b.ok(err)
	if e.Mode != 0o640 {
		t.Errorf("its mode has become %v", e.Mode)
	}

	short, cancel := context.WithCancel(ctx)
	w, err = b.Create(short, "/d/f", CreateOptions{})
	b.ok(err)
	cancel()
	if err := w.Close(); err == nil {
		t.Error("closing after the context ended is no error")
	}
	b.bytes.fail = fs.ErrPermission
	w, err = b.Create(ctx, "/d/f", CreateOptions{})
	b.ok(err)
	_, _ = io.WriteString(w, "x")
	b.want(w.Close(), fs.ErrPermission)
	b.shows(map[string]string{"/d/": "", "/d/f": ""})
	if len(b.slots) != 0 || b.bytes.batches != 0 {
		t.Errorf("%d writers and %d batches are left over", len(b.slots), b.bytes.batches)
	}
}
