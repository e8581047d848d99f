package storage

import (
	"bytes"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

// until waits until cond holds.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-testContext(t).Done():
			t.Fatalf("never: %s", what)
		}
	}
}

func TestSeedRatio(t *testing.T) {
	a, link, dir := shared(t, map[string][]byte{"f": randomBytes(1, 1<<20)})
	if err := a.SetLimit(link.Root, Limit{Ratio: 1.5}); err != nil {
		t.Fatal(err)
	}
	get := func() {
		t.Helper()
		if _, err := newPeer(t).Get(testContext(t), link, GetOptions{Dest: filepath.Join(t.TempDir(), "out")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	get()
	if s := a.Shares(); len(s) != 1 || s[0].Limit.Ratio != 1.5 || s[0].Limit.Uploaded != 1<<20 {
		t.Fatalf("%+v", s)
	}
	get()
	until(t, "it is unshared", func() bool { return len(a.Shares()) == 0 })
	if !exists(filepath.Join(dir, "f")) {
		t.Error("the file is gone")
	}
}

func TestSeedTimeOfAGet(t *testing.T) {
	_, link, dir := shared(t, map[string][]byte{"f": []byte("x")})
	b := newPeer(t)
	out := filepath.Join(t.TempDir(), "out")
	if _, err := b.Get(testContext(t), link, GetOptions{Dest: out, Limit: Limit{Time: 100 * time.Millisecond}}, nil); err != nil {
		t.Fatal(err)
	}
	until(t, "it is unshared", func() bool { return len(b.Shares()) == 0 })
	sameTree(t, dir, out)
}

// TestLimitsOutliveThePeer: how far a share has come is kept, and a limit can
// be changed and taken away.
func TestLimitsOutliveThePeer(t *testing.T) {
	a, link, _ := shared(t, map[string][]byte{"f": []byte("x")})
	if err := a.SetLimit(link.Root, Limit{Ratio: 3, Time: time.Hour}); err != nil {
		t.Fatal(err)
	}
	r, _ := a.store.Root(link.Root)
	r.Uploaded.Add(2)
	if err := a.Storage.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	s := again.Shares()
	if len(s) != 1 || s[0].Limit.Uploaded != 2 || s[0].Limit.Time != time.Hour || s[0].Limit.Seeded <= 0 {
		t.Fatalf("%+v", s)
	}
	if err := again.SetLimit(link.Root, Limit{}); err != nil || again.Shares()[0].Limit.Set() {
		t.Error(err)
	}
	for _, bad := range []Limit{{Ratio: -1}, {Time: -1}, {Ratio: math.NaN()}} {
		if err := again.SetLimit(link.Root, bad); !errors.Is(err, ErrLimit) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := again.SetLimit(chunk.SumRaw(nil), Limit{Ratio: 1}); !errors.Is(err, ErrNotShared) {
		t.Error(err)
	}
}

func TestReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			limit Limit
			size  int64
			want  bool
		}{
			{Limit{}, 5, false},
			{Limit{Ratio: 2, Uploaded: 9}, 5, false},
			{Limit{Ratio: 2, Uploaded: 10}, 5, true},
			{Limit{Ratio: 2}, 0, false},
			{Limit{Time: time.Minute, Seeded: time.Minute - 1}, 5, false},
			{Limit{Time: time.Minute, Seeded: time.Minute, Ratio: 9}, 5, true},
		} {
			if got := c.limit.Reached(c.size); got != c.want {
				t.Errorf("%+v of %d: %v", c.limit, c.size, got)
			}
		}
	})
}

// fileServer serves a folder with ranges; without says not to.
func fileServer(t testing.TB, dir string, ranges bool) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ranges {
			r.Header.Del("Range")
		}
		http.FileServer(http.Dir(dir)).ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestShareWithAWebSeed(t *testing.T) {
	data := randomBytes(2, 5<<20+1)
	dir := t.TempDir()
	path := filepath.Join(dir, "big file.bin")
	write(t, path, data)
	url := fileServer(t, dir, true) + "/big%20file.bin"
	a := newPeer(t)
	sh, err := a.Share(testContext(t), path, ShareOptions{Web: []string{url}}, nil)
	if err != nil || len(sh.Web) != 1 || sh.Web[0] != url {
		t.Fatal(sh, err)
	}
	link := a.link(t, sh)
	link.Web = sh.Web
	if link, err = chunk.ParseLink(link.String()); err != nil {
		t.Fatal(err)
	}
	b := newPeer(t)
	out := filepath.Join(t.TempDir(), "out")
	res, err := b.Get(testContext(t), link, GetOptions{Dest: out, WebPrivate: true}, nil)
	if err != nil || len(res.Web) != 1 || res.Web[0].Why != "" {
		t.Fatal(res, err)
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
	if s := b.Shares(); len(s) != 1 || len(s[0].Web) != 1 {
		t.Errorf("the next link does not have it: %+v", s)
	}
	// Without permission, the private address is left alone.
	res, err = newPeer(t).Get(testContext(t), link, GetOptions{Dest: filepath.Join(t.TempDir(), "out")}, nil)
	if err != nil || res.Web[0].Bytes != 0 || !strings.Contains(res.Web[0].Why, "public") {
		t.Errorf("%+v %v", res, err)
	}
}

func TestWebSeedsAreChecked(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "same"), randomBytes(3, 2<<20))
	write(t, filepath.Join(dir, "other"), randomBytes(4, 2<<20))
	write(t, filepath.Join(dir, "short"), []byte("x"))
	write(t, filepath.Join(dir, "sub", "f"), []byte("x"))
	write(t, filepath.Join(dir, "none"), nil)
	url, plain := fileServer(t, dir, true), fileServer(t, dir, false)
	a := newPeer(t)
	for _, c := range []struct{ path, url, want string }{
		{"same", url + "/other", "other bytes"},
		{"same", url + "/short", "bytes there"},
		{"same", url + "/gone", "Not Found"},
		{"same", plain + "/same", "does not support ranges"},
		{"same", "ftp://127.0.0.1/same", "not an http"},
		{"same", "http://127.0.0.1:1/same", "refused"},
		{"sub", url + "/sub", "single file"},
		{"none", url + "/none", "empty"},
	} {
		_, err := a.Share(testContext(t), filepath.Join(dir, c.path), ShareOptions{Web: []string{c.url}}, nil)
		if !errors.Is(err, ErrWebSeed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s from %s: %v", c.path, c.url, err)
		}
	}
	if s := a.Shares(); len(s) > 0 {
		t.Errorf("%+v", s)
	}
}

func TestDownload(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "f"), randomBytes(5, 3<<20))
	url := fileServer(t, dir, true)
	a := newPeer(t)
	dest := filepath.Join(t.TempDir(), "got")
	if err := a.Download(testContext(t), url+"/f", dest, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dest); err != nil || !bytes.Equal(got, randomBytes(5, 3<<20)) {
		t.Error(err)
	}
	if err := a.Download(testContext(t), url+"/f", dest, nil); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	for _, bad := range []string{url + "/gone", "http://127.0.0.1:1/", "file:///etc/passwd"} {
		if err := a.Download(testContext(t), bad, other, nil); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	if exists(other) || exists(other+block.PartialSuffix) || exists(dest+block.PartialSuffix) {
		t.Error("something was left behind")
	}
}
