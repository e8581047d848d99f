package storage

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shoal-os/shoal/storage/block"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"*.jpg", "a.jpg", true},
		{"*.jpg", "deep/down/a.jpg", true},
		{"*.jpg", "a.jpg/b", false}, // chosen by its folder, not by itself
		{"/a.jpg", "a.jpg", true},
		{"/a.jpg", "b/a.jpg", false},
		{"a/*.jpg", "a/b.jpg", true},
		{"a/*.jpg", "a/b/c.jpg", false},
		{"a/**/c.jpg", "a/c.jpg", true},
		{"a/**/c.jpg", "a/b/b/c.jpg", true},
		{"a/**", "a/b/c", true},
		{"**", "anything/at/all", true},
		{"**/x", "x", true},
		{"**/**/**/x", "a/b/x", true},
		{"photos/", "photos", true},
		{"p[a-z]otos", "photos", true},
		{"2?", "2025", false},
		{`\*`, "*", true},
	} {
		if got := matchPath(c.pattern, c.path); got != c.want {
			t.Errorf("%q and %q: %v", c.pattern, c.path, got)
		}
	}
	for _, bad := range [][]string{{"["}, {"a/[b"}, {""}, {"/"}, {`x\`}, slices.Repeat([]string{"x"}, patternsMax+1)} {
		if err := CheckPatterns(bad); !errors.Is(err, ErrPattern) {
			t.Errorf("%q: %v", bad[0], err)
		}
	}
}

// onlyFiles is a folder to choose from.
func onlyFiles() map[string][]byte {
	return map[string][]byte{
		"big.bin": randomBytes(1, 5<<20), "music/one.flac": randomBytes(2, 3<<20), "music/two.flac": randomBytes(3, 2<<20+5),
		"music/empty.txt": nil, "docs/deep/a.txt": []byte("a"), "docs/b.txt": []byte("b"), "none.txt": nil,
	}
}

func names(t testing.TB, dir string) (out []string) {
	for name := range listing(t, dir) {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func TestGetOnly(t *testing.T) {
	a, link, dir := shared(t, onlyFiles())
	if err := os.Symlink("b.txt", filepath.Join(dir, "docs", "link")); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	sh, err := a.Share(ctx, dir, ShareOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	link = a.link(t, sh)
	b := newPeer(t)
	out := filepath.Join(t.TempDir(), "out")
	get := func(only ...string) GetResult {
		t.Helper()
		res, err := b.Get(ctx, link, GetOptions{Dest: out, Only: only}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if exists(out + block.PartialSuffix) {
			t.Error("the partial is still there")
		}
		return res
	}
	res := get("docs", "two.*")
	want := []string{"./", "docs/", "docs/b.txt", "docs/deep/", "docs/deep/a.txt", "docs/link@", "music/", "music/two.flac"}
	if got := names(t, out); !slices.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
	if res.Size != 2<<20+5+2 || res.Files != 3 || res.Fetched != res.Size {
		t.Errorf("%+v", res)
	}
	if s := b.Shares(); len(s) != 1 || s[0].State != Partly || s[0].Path != out || s[0].Have != 5 {
		t.Errorf("%+v", s)
	}
	if res := get("docs", "two.*"); res.Fetched != 0 {
		t.Errorf("again: fetched %d bytes", res.Fetched)
	}
	// It seeds what it has: the sharer is gone, and a third peer gets that much.
	a.host.Close()
	c := newPeer(t)
	third := filepath.Join(t.TempDir(), "third")
	if _, err := c.Get(ctx, b.link(t, sh), GetOptions{Dest: third, Only: []string{"two.flac"}}, nil); err != nil {
		t.Fatal(err)
	}
	if got := names(t, third); !slices.Equal(got, []string{"./", "music/", "music/two.flac"}) {
		t.Error(got)
	}
}

func TestGetOnlyThenMoreThenAll(t *testing.T) {
	_, link, dir := shared(t, onlyFiles())
	ctx := testContext(t)
	b := newPeer(t)
	out := filepath.Join(t.TempDir(), "out")
	var fetched int64
	for _, only := range [][]string{{"b.txt"}, {"none.txt"}, {"one.flac", "music/*.txt"}, nil} {
		res, err := b.Get(ctx, link, GetOptions{Dest: out, Only: only}, nil)
		if err != nil {
			t.Fatal(only, err)
		}
		fetched += res.Fetched
	}
	sameTree(t, dir, out)
	if want := int64(5<<20 + 3<<20 + 2<<20 + 5 + 2); fetched != want {
		t.Errorf("fetched %d bytes in all, want %d", fetched, want)
	}
	if s := b.Shares(); len(s) != 1 || s[0].State != Seeding {
		t.Errorf("%+v", s)
	}
	// From what is here whole, a choice is copied.
	some := filepath.Join(t.TempDir(), "some")
	res, err := b.Get(ctx, link, GetOptions{Dest: some, Only: []string{"music"}}, nil)
	if err != nil || res.Fetched != 0 {
		t.Fatal(res, err)
	}
	if got := names(t, some); !slices.Equal(got, []string{"./", "music/", "music/empty.txt", "music/one.flac", "music/two.flac"}) {
		t.Error(got)
	}
}

func TestGetOnlyErrors(t *testing.T) {
	_, link, _ := shared(t, onlyFiles())
	ctx := testContext(t)
	b := newPeer(t)
	out := filepath.Join(t.TempDir(), "out")
	if _, err := b.Get(ctx, link, GetOptions{Dest: out, Only: []string{"*.mp3"}}, nil); !errors.Is(err, ErrNoMatch) {
		t.Errorf("err = %v", err)
	}
	if _, err := b.Get(ctx, link, GetOptions{Dest: out, Only: []string{"["}}, nil); !errors.Is(err, ErrPattern) {
		t.Errorf("err = %v", err)
	}
	if exists(out) || exists(out+block.PartialSuffix) {
		t.Error("something was left behind")
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(ctx, link, GetOptions{Dest: out, Only: []string{"b.txt"}}, nil); !errors.Is(err, ErrExists) {
		t.Errorf("err = %v", err)
	}
}

// TestChosenFilesAreTheUsers: what was chosen and then changed, or put beside
// it, is neither served nor overwritten.
func TestChosenFilesAreTheUsers(t *testing.T) {
	_, link, dir := shared(t, onlyFiles())
	ctx := testContext(t)
	b := newPeer(t)
	out := filepath.Join(t.TempDir(), "out")
	if _, err := b.Get(ctx, link, GetOptions{Dest: out, Only: []string{"docs"}}, nil); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(out, "docs", "b.txt")
	write(t, mine, []byte("B"))
	if err := os.Chtimes(mine, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(ctx, link, GetOptions{Dest: out}, nil); !errors.Is(err, ErrExists) {
		t.Fatalf("err = %v", err)
	}
	if got, _ := os.ReadFile(mine); string(got) != "B" {
		t.Fatalf("it is now %q", got)
	}
	if s := b.Shares(); len(s) != 1 || s[0].Problem == "" {
		t.Errorf("%+v", s)
	}
	if _, err := b.Get(ctx, link, GetOptions{Dest: out, Force: true}, nil); err != nil {
		t.Fatal(err)
	}
	sameTree(t, dir, out)
}

// TestOpenAChoice: reading what was not chosen leaves the chosen folder alone.
func TestOpenAChoice(t *testing.T) {
	files := onlyFiles()
	_, link, _ := shared(t, files)
	ctx := testContext(t)
	b := newPeer(t)
	out := filepath.Join(t.TempDir(), "out")
	if _, err := b.Get(ctx, link, GetOptions{Dest: out, Only: []string{"docs"}}, nil); err != nil {
		t.Fatal(err)
	}
	before := names(t, out)
	c := b.open(t, link)
	readAll(t, c.file(t, "docs/b.txt"), files["docs/b.txt"])
	readAll(t, c.file(t, "music/one.flac"), files["music/one.flac"])
	if got := names(t, out); !slices.Equal(got, before) {
		t.Errorf("the folder now has %v", got)
	}
	c.Close()
	if left, _ := filepath.Glob(filepath.Join(b.cfg.Cache, "*", "*")); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
}
