package mounttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shoal-os/shoal/storage/mount"
)

// Run runs the suite that every FS must pass. open returns a new one with nothing in it.
func Run(t *testing.T, open func(t *testing.T) mount.FS) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *check)
	}{
		{"empty", testEmpty}, {"files", testFiles}, {"replace", testReplace}, {"broken body", testBrokenBody},
		{"no folder", testNoFolder}, {"folders", testFolders}, {"open file stays", testOpenStays}, {"move", testMove},
		{"move over", testMoveOver}, {"copy", testCopy}, {"case only", testCaseOnly}, {"times", testTimes},
		{"ranges", testRanges}, {"space", testSpace}, {"cancelled", testCancelled},
		{"put while it moves", testPutWhileItMoves}, {"puts at once", testPutsAtOnce},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, &check{T: t, fs: open(t), ctx: t.Context()}) })
	}
}

// check is an FS with what a test says of it.
type check struct {
	*testing.T
	fs  mount.FS
	ctx context.Context
}

var someTime = time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC)

func (c *check) put(p, text string) mount.Info {
	c.Helper()
	info, err := c.fs.Put(c.ctx, p, strings.NewReader(text), someTime)
	c.ok("put "+p, err)
	return info
}

func (c *check) mkdir(paths ...string) {
	c.Helper()
	for _, p := range paths {
		c.ok("mkdir "+p, c.fs.Mkdir(c.ctx, p))
	}
}

func (c *check) ok(what string, err error) {
	c.Helper()
	if err != nil {
		c.Fatalf("%s: %v", what, err)
	}
}

func (c *check) fails(what string, err, want error) {
	c.Helper()
	if !errors.Is(err, want) {
		c.Errorf("%s: %v; want: %v", what, err, want)
	}
}

// has checks a file's bytes, and that Stat agrees with Open.
func (c *check) has(p, text string) mount.Info {
	c.Helper()
	f, err := c.fs.Open(c.ctx, p)
	c.ok("open "+p, err)
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Info().Size))
	c.ok("read "+p, err)
	if string(data) != text {
		c.Errorf("%s has %.40q; want %.40q", p, data, text)
	}
	info, err := c.fs.Stat(c.ctx, p)
	c.ok("stat "+p, err)
	if info.Size != int64(len(text)) || info.Folder || info.Tag == "" || info.Tag != f.Info().Tag {
		c.Errorf("%s is %+v; its file is %+v", p, info, f.Info())
	}
	return info
}

func (c *check) gone(paths ...string) {
	c.Helper()
	for _, p := range paths {
		_, err := c.fs.Stat(c.ctx, p)
		c.fails("stat "+p, err, fs.ErrNotExist)
	}
}

// lists checks the names in a folder; those of folders end in a slash.
func (c *check) lists(p, want string) {
	c.Helper()
	infos, err := c.fs.List(c.ctx, p)
	c.ok("list "+p, err)
	var names []string
	for _, i := range infos {
		if i.Folder {
			i.Name += "/"
		}
		names = append(names, i.Name)
	}
	if got := strings.Join(names, " "); got != want {
		c.Errorf("%s has %q; want %q", p, got, want)
	}
}

func testEmpty(_ *testing.T, c *check) {
	info, err := c.fs.Stat(c.ctx, "/")
	c.ok("stat /", err)
	if !info.Folder || info.Name != "" {
		c.Errorf("/ is %+v", info)
	}
	c.lists("/", "")
	c.gone("/a", "/a/b")
	_, err = c.fs.Open(c.ctx, "/a")
	c.fails("open", err, fs.ErrNotExist)
	_, err = c.fs.Open(c.ctx, "/")
	c.fails("open /", err, mount.ErrIsFolder)
	_, err = c.fs.List(c.ctx, "/a")
	c.fails("list", err, fs.ErrNotExist)
	c.fails("remove", c.fs.Remove(c.ctx, "/a"), fs.ErrNotExist)
	c.fails("move", c.fs.Move(c.ctx, "/a", "/b", true), fs.ErrNotExist)
	c.fails("copy", c.fs.Copy(c.ctx, "/a", "/b", true, true), fs.ErrNotExist)
	c.fails("time", c.fs.SetModTime(c.ctx, "/a", someTime), fs.ErrNotExist)
	c.fails("mkdir /", c.fs.Mkdir(c.ctx, "/"), fs.ErrExist)
}

func testFiles(_ *testing.T, c *check) {
	put := c.put("/b", "text")
	if put.Name != "b" || put.Size != 4 || put.Folder || put.Tag == "" {
		c.Errorf("put gave %+v", put)
	}
	c.put("/a", "")
	c.put("/._a", "resource")
	c.put("/日本.txt", "日本")
	if got := c.has("/b", "text"); got.Tag != put.Tag || !got.ModTime.Equal(someTime) || got.Name != "b" {
		c.Errorf("/b is %+v after %+v", got, put)
	}
	c.has("/a", "")
	c.lists("/", "._a a b 日本.txt")
	_, err := c.fs.List(c.ctx, "/b")
	c.fails("list a file", err, mount.ErrNotFolder)
	c.fails("mkdir on a file", c.fs.Mkdir(c.ctx, "/b"), fs.ErrExist)
	c.ok("remove", c.fs.Remove(c.ctx, "/b"))
	c.gone("/b")
	c.lists("/", "._a a 日本.txt")
	c.put("/b", "again") // a removed name is free
	c.has("/b", "again")
}

func testReplace(_ *testing.T, c *check) {
	before := c.put("/f", "one")
	after := c.put("/f", "another")
	if before.Tag == after.Tag {
		c.Error("other bytes have the same tag")
	}
	c.has("/f", "another")
	if again := c.put("/f", "one"); again.Tag != before.Tag {
		c.Error("the same bytes have another tag")
	}
	c.lists("/", "f")
}

func testBrokenBody(_ *testing.T, c *check) {
	c.put("/f", "kept")
	broken := errors.New("the client has gone")
	for _, p := range []string{"/f", "/new"} {
		for _, sent := range []int{0, 10, 3 << 20} {
			body := io.MultiReader(strings.NewReader(strings.Repeat("x", sent)), iotest.ErrReader(broken))
			_, err := c.fs.Put(c.ctx, p, body, someTime)
			c.fails(fmt.Sprintf("put %s after %d bytes", p, sent), err, broken)
		}
	}
	c.has("/f", "kept")
	c.gone("/new")
	c.lists("/", "f")
}

func testNoFolder(_ *testing.T, c *check) {
	c.put("/file", "x")
	c.put("/other", "x")
	for _, folder := range []string{"/none", "/file"} {
		p := folder + "/f"
		if _, err := c.fs.Put(c.ctx, p, strings.NewReader("x"), someTime); !noFolder(err) {
			c.Errorf("put %s: %v", p, err)
		}
		if err := c.fs.Mkdir(c.ctx, p); !noFolder(err) {
			c.Errorf("mkdir %s: %v", p, err)
		}
		if err := c.fs.Copy(c.ctx, "/other", p, true, true); !noFolder(err) {
			c.Errorf("copy to %s: %v", p, err)
		}
		if _, err := c.fs.Stat(c.ctx, p); !noFolder(err) {
			c.Errorf("stat %s: %v", p, err)
		}
	}
	if err := c.fs.Move(c.ctx, "/file", "/none/f", true); !noFolder(err) {
		c.Errorf("move: %v", err)
	}
	c.has("/file", "x")
	c.lists("/", "file other")
}

func noFolder(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, mount.ErrNotFolder)
}

func testFolders(_ *testing.T, c *check) {
	c.mkdir("/d", "/d/e", "/d-", "/da")
	c.fails("mkdir twice", c.fs.Mkdir(c.ctx, "/d"), fs.ErrExist)
	c.put("/d/f", "x")
	c.put("/d/e/f", "y")
	c.lists("/", "d/ d-/ da/")
	c.lists("/d", "e/ f")
	_, err := c.fs.Put(c.ctx, "/d", strings.NewReader("x"), someTime)
	c.fails("put on a folder", err, mount.ErrIsFolder)
	_, err = c.fs.Open(c.ctx, "/d")
	c.fails("open a folder", err, mount.ErrIsFolder)
	info, err := c.fs.Stat(c.ctx, "/d/e")
	c.ok("stat", err)
	if !info.Folder || info.Name != "e" {
		c.Errorf("/d/e is %+v", info)
	}
	c.ok("remove", c.fs.Remove(c.ctx, "/d/e/f"))
	c.lists("/d/e", "") // a folder stays when its last file goes
	c.ok("remove", c.fs.Remove(c.ctx, "/d"))
	c.gone("/d", "/d/e", "/d/f")
	c.lists("/", "d-/ da/")
	c.mkdir("/d")
	c.lists("/d", "")
}

func testOpenStays(_ *testing.T, c *check) {
	c.put("/f", "as it was")
	f, err := c.fs.Open(c.ctx, "/f")
	c.ok("open", err)
	defer f.Close()
	c.put("/f", "other bytes altogether")
	c.ok("remove", c.fs.Remove(c.ctx, "/f"))
	data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Info().Size))
	c.ok("read", err)
	if string(data) != "as it was" {
		c.Errorf("an open file has become %q", data)
	}
}

func testMove(_ *testing.T, c *check) {
	c.mkdir("/d", "/d/e", "/to")
	before := c.put("/d/e/f", "x")
	c.put("/g", "g")
	c.ok("move", c.fs.Move(c.ctx, "/g", "/to/g2", false))
	c.gone("/g")
	c.has("/to/g2", "g")
	c.ok("move a folder", c.fs.Move(c.ctx, "/d", "/to/d2", false))
	c.gone("/d", "/d/e", "/d/e/f")
	after := c.has("/to/d2/e/f", "x")
	if after.Tag != before.Tag || !after.ModTime.Equal(before.ModTime) {
		c.Errorf("moved: %+v; was %+v", after, before)
	}
	c.lists("/", "to/")
	c.mkdir("/d") // the old name is free
	c.lists("/d", "")
	c.ok("and back", c.fs.Move(c.ctx, "/to/d2", "/d/d", false))
	c.has("/d/d/e/f", "x")
}

func testMoveOver(_ *testing.T, c *check) {
	c.put("/a", "a")
	c.put("/b", "b")
	c.mkdir("/d", "/d/sub", "/e")
	c.put("/d/sub/f", "f")
	c.put("/e/old", "old")
	c.fails("move on a file", c.fs.Move(c.ctx, "/a", "/b", false), fs.ErrExist)
	c.fails("move on a folder", c.fs.Move(c.ctx, "/d", "/e", false), fs.ErrExist)
	c.has("/a", "a")
	c.has("/e/old", "old")
	c.ok("move over a file", c.fs.Move(c.ctx, "/a", "/b", true))
	c.gone("/a")
	c.has("/b", "a")
	c.ok("move a folder over a folder", c.fs.Move(c.ctx, "/d", "/e", true))
	c.gone("/d", "/e/old")
	c.has("/e/sub/f", "f")
	c.ok("move a folder over a file", c.fs.Move(c.ctx, "/e", "/b", true))
	c.has("/b/sub/f", "f")
	c.put("/file", "x")
	c.ok("move a file over a folder", c.fs.Move(c.ctx, "/file", "/b", true))
	c.has("/b", "x")
	c.gone("/b/sub", "/b/sub/f")
	c.lists("/", "b")
}

func testCopy(_ *testing.T, c *check) {
	c.mkdir("/d", "/d/e", "/old")
	before := c.put("/d/e/f", "x")
	c.put("/old/was", "was")
	c.ok("copy a file", c.fs.Copy(c.ctx, "/d/e/f", "/g", false, true))
	if after := c.has("/g", "x"); after.Tag != before.Tag {
		c.Error("a copy has another tag")
	}
	c.fails("copy on a file", c.fs.Copy(c.ctx, "/d/e/f", "/g", false, true), fs.ErrExist)
	c.ok("copy over a folder", c.fs.Copy(c.ctx, "/d", "/old", true, true))
	c.gone("/old/was")
	c.has("/old/e/f", "x")
	c.ok("a folder alone", c.fs.Copy(c.ctx, "/d", "/alone", false, false))
	c.lists("/alone", "")
	c.ok("over a file", c.fs.Copy(c.ctx, "/d", "/g", true, true))
	c.has("/g/e/f", "x")
	c.put("/d/e/f", "changed") // copies do not follow
	c.has("/g/e/f", "x")
	c.has("/old/e/f", "x")
	c.lists("/", "alone/ d/ g/ old/")
}

func testCaseOnly(_ *testing.T, c *check) {
	c.mkdir("/Dir")
	c.put("/Dir/File", "x")
	_, err := c.fs.Put(c.ctx, "/Dir/file", strings.NewReader("y"), someTime)
	c.fails("put another case", err, mount.ErrClash)
	c.fails("mkdir another case", c.fs.Mkdir(c.ctx, "/dir"), mount.ErrClash)
	c.ok("move to another case", c.fs.Move(c.ctx, "/Dir/File", "/Dir/fILE", false))
	c.gone("/Dir/File")
	c.has("/Dir/fILE", "x")
	c.ok("move a folder to another case", c.fs.Move(c.ctx, "/Dir", "/dIR", false))
	c.has("/dIR/fILE", "x")
	c.lists("/", "dIR/")
	_, err = c.fs.Put(c.ctx, `/a\b`, strings.NewReader("y"), someTime)
	c.fails("put a name that Windows lacks", err, mount.ErrName)
}

func testTimes(_ *testing.T, c *check) {
	before := c.put("/f", "x")
	at := someTime.Add(-1000 * time.Hour)
	c.ok("time", c.fs.SetModTime(c.ctx, "/f", at))
	after := c.has("/f", "x")
	if !after.ModTime.Equal(at) || after.Tag != before.Tag {
		c.Errorf("%+v; want time %v and tag %s", after, at, before.Tag)
	}
	c.mkdir("/d")
	if err := c.fs.SetModTime(c.ctx, "/d", at); err != nil && !errors.Is(err, mount.ErrIsFolder) {
		c.Errorf("time of a folder: %v", err)
	}
	c.lists("/", "d/ f")
}

func testRanges(_ *testing.T, c *check) {
	data := make([]byte, 3<<20+12345)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	_, err := c.fs.Put(c.ctx, "/f", iotest.HalfReader(bytes.NewReader(data)), someTime)
	c.ok("put", err)
	f, err := c.fs.Open(c.ctx, "/f")
	c.ok("open", err)
	defer f.Close()
	if err := iotest.TestReader(io.NewSectionReader(f, 1<<20-50, 100), data[1<<20-50:1<<20+50]); err != nil {
		c.Error(err)
	}
	buf := make([]byte, 2<<20)
	for range 50 {
		off, n := rand.Int64N(int64(len(data))+10), rand.IntN(len(buf))
		got, err := f.ReadAt(buf[:n], off)
		want := data[min(off, int64(len(data))):min(off+int64(n), int64(len(data)))]
		if !bytes.Equal(buf[:got], want) || got < n && err != io.EOF || got == n && err != nil && err != io.EOF {
			c.Fatalf("ReadAt %d at %d: %d, %v", n, off, got, err)
		}
	}
}

func testSpace(_ *testing.T, c *check) {
	before, err := c.fs.Space(c.ctx)
	c.ok("space", err)
	c.put("/f", strings.Repeat("x", 1<<20))
	after, err := c.fs.Space(c.ctx)
	c.ok("space", err)
	if after.Free > before.Free || after.Free < 0 || after.Used < before.Used {
		c.Errorf("space was %+v and is %+v", before, after)
	}
}

func testCancelled(_ *testing.T, c *check) {
	c.put("/f", "kept")
	ctx, cancel := context.WithCancel(c.ctx)
	body := iotest.OneByteReader(io.MultiReader(strings.NewReader("xx"), cancelling{cancel}, strings.NewReader("yy")))
	if _, err := c.fs.Put(ctx, "/f", body, someTime); err == nil {
		c.has("/f", "xxyy") // an FS may finish
		return
	}
	// It may also have finished and not know it: who gives up while it is being committed cannot tell. There is nothing between.
	f, err := c.fs.Open(c.ctx, "/f")
	c.ok("open", err)
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 10))
	c.ok("read", errors.Join(err, f.Close()))
	if got := string(data); got != "kept" && got != "xxyy" {
		c.Errorf("/f has %q", got)
	}
}

// cancelling cancels when it is read, and has nothing.
type cancelling struct{ cancel func() }

func (r cancelling) Read([]byte) (int, error) {
	r.cancel()
	return 0, io.EOF
}

// testPutWhileItMoves: what is put into a folder while it is moved ends up somewhere.
func testPutWhileItMoves(_ *testing.T, c *check) {
	c.mkdir("/a", "/a/0")
	for i := range 40 {
		c.put(fmt.Sprintf("/a/0/%02d", i), "old")
	}
	for i := range 14 {
		c.ok("copy", c.fs.Copy(c.ctx, "/a/0", fmt.Sprintf("/a/%d", i+1), false, true))
	}
	const last = "/a/9/39"
	moved := make(chan error, 1)
	go func() { moved <- c.fs.Move(c.ctx, "/a", "/b", false) }()
	for err := fs.ErrNotExist; err != nil && len(moved) == 0; _, err = c.fs.Stat(c.ctx, "/b") {
		runtime.Gosched()
	}
	_, err := c.fs.Put(c.ctx, last, strings.NewReader("new"), someTime)
	c.ok("move", <-moved)
	switch {
	case err == nil:
		c.has(last, "new")
	case !noFolder(err):
		c.Errorf("put: %v", err)
	}
	if _, err := c.fs.Stat(c.ctx, "/b/9/39"); err != nil {
		c.Errorf("moved: %v", err)
	}
}

// testPutsAtOnce: a Put answers with what it wrote itself.
func testPutsAtOnce(_ *testing.T, c *check) {
	tags := map[string]string{}
	texts := []string{"one", "two", "three", "four"}
	for _, text := range texts {
		tags[text] = c.put("/"+text, text).Tag
	}
	var all sync.WaitGroup
	for _, text := range texts {
		all.Go(func() {
			for range 20 {
				info, err := c.fs.Put(c.ctx, "/f", strings.NewReader(text), someTime)
				if err != nil || info.Tag != tags[text] || info.Name != "f" || info.Size != int64(len(text)) {
					c.Errorf("put %q gave %+v, %v", text, info, err)
				}
			}
		})
	}
	all.Wait()
}
