package mount_test

import (
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-os/shoal/storage/mount"
	"github.com/shoal-os/shoal/storage/mount/mounttest"
)

func TestLocking(t *testing.T) {
	c := newClient(t, mount.Options{Prefix: "/dav"})
	c.want(201, "MKCOL", "/dav/d", "")
	c.want(201, "PUT", "/dav/d/f", "x")
	file := c.lock("/dav/d/f")
	for _, m := range []string{"PUT", "DELETE", "PROPPATCH", "LOCK"} {
		body := "y"
		if m == "PROPPATCH" {
			body = setProp("urn:x", "p", "1")
		} else if m == "LOCK" {
			body = lockBody
		}
		w := c.want(423, m, "/dav/d/f", body)
		if !strings.Contains(w.Body.String(), "<D:href>/dav/d/f</D:href>") {
			t.Errorf("%s: %s", m, w.Body)
		}
	}
	c.want(423, "DELETE", "/dav/d", "")
	c.want(423, "MOVE", "/dav/d", "", "Destination: /dav/e")
	c.want(423, "MOVE", "/dav/d/f", "", "Destination: /dav/g")
	c.want(201, "COPY", "/dav/d/f", "", "Destination: /dav/g")
	c.want(423, "COPY", "/dav/g", "", "Destination: /dav/d/f")
	c.want(423, "LOCK", "/dav/d", lockBody) // it would cover the file
	c.want(200, "GET", "/dav/d/f", "")
	c.want(204, "PUT", "/dav/d/f", "y", "If: ("+file+")")
	c.want(204, "PUT", "/dav/d/f", "y", "If: <http://pool/dav/d/f> ("+file+")")
	c.want(412, "PUT", "/dav/g", "y", "If: ("+file+")") // the token is not of that file
	c.want(204, "PUT", "/dav/g", "y", "If: </dav/d/f> ("+file+")")
	c.want(423, "PUT", "/dav/d/f", "y", "If: (Not <DAV:no-lock>)")
	c.want(409, "UNLOCK", "/dav/g", "", "Lock-Token: "+file)
	c.want(204, "MOVE", "/dav/d/f", "", "Destination: /dav/g", "If: ("+file+")")
	c.want(409, "UNLOCK", "/dav/g", "", "Lock-Token: "+file) // it did not move along
	c.want(204, "PUT", "/dav/g", "y")
}

// TestFolderLock: a lock on a folder protects the list of what is in it, and with depth all below.
func TestFolderLock(t *testing.T) {
	c := newClient(t, mount.Options{})
	c.want(201, "MKCOL", "/d", "")
	c.want(201, "PUT", "/d/f", "x")
	token := c.lock("/d", "Depth: 0")
	c.want(204, "PUT", "/d/f", "y")
	c.want(423, "PUT", "/d/new", "y")
	c.want(423, "MKCOL", "/d/new", "")
	c.want(423, "DELETE", "/d/f", "")
	c.want(423, "LOCK", "/d/new", lockBody)
	c.want(201, "PUT", "/d/new", "y", "If: </d> ("+token+")")
	c.want(204, "UNLOCK", "/d", "", "Lock-Token: "+token)
	token = c.lock("/d")
	c.want(423, "PUT", "/d/f", "y")
	c.want(423, "LOCK", "/d/f", lockBody)
	c.want(204, "PUT", "/d/f", "y", "If: ("+token+")")
	c.want(200, "LOCK", "/d/f", "", "If: ("+token+")") // refreshed by way of a member
	c.want(204, "DELETE", "/d", "", "If: ("+token+")")
	c.want(201, "MKCOL", "/d", "") // the lock has gone with the folder
	c.want(201, "PUT", "/d/f", "y")
}

func TestSharedLocks(t *testing.T) {
	c := newClient(t, mount.Options{})
	shared := strings.Replace(lockBody, "exclusive", "shared", 1)
	w := c.want(201, "LOCK", "/f", shared) // which makes an empty file
	one := w.Header().Get("Lock-Token")
	two := c.want(200, "LOCK", "/f", shared).Header().Get("Lock-Token")
	c.want(423, "LOCK", "/f", lockBody)
	c.want(423, "PUT", "/f", "x")
	c.want(204, "PUT", "/f", "x", "If: ("+one+")")
	c.want(204, "PUT", "/f", "y", "If: ("+two+")")
	text := c.want(207, "PROPFIND", "/f", "").Body.String()
	for _, want := range []string{one, two, "<D:shared/>", "<D:owner>me</D:owner>", "<D:depth>infinity</D:depth>", "Second-600"} {
		if want = strings.Trim(want, "<>"); !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	c.want(204, "UNLOCK", "/f", "", "Lock-Token: "+one)
	c.want(423, "PUT", "/f", "x")
	c.want(204, "UNLOCK", "/f", "", "Lock-Token: "+two)
	c.want(204, "PUT", "/f", "x")
}

// TestLocksEnd: a client that forgets its lock locks others out for a while, not for ever.
func TestLocksEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, mount.Options{})
		token := c.lock("/f", "Timeout: Infinite")
		<-time.After(59 * time.Minute)
		c.want(423, "PUT", "/f", "x")
		c.want(200, "LOCK", "/f", "", "If: ("+token+")", "Timeout: Second-120")
		<-time.After(119 * time.Second)
		c.want(423, "PUT", "/f", "x")
		<-time.After(2 * time.Second)
		c.want(204, "PUT", "/f", "x")
		c.want(412, "PUT", "/f", "x", "If: ("+token+")")
		c.want(412, "LOCK", "/f", "", "If: ("+token+")")
	})
}

// TestTooMany: requests that are too many wait, and are refused if that takes too long.
func TestTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, mount.Options{})
		body, client := io.Pipe()
		var running sync.WaitGroup
		for range 64 {
			running.Go(func() { c.do("PUT", "/f", body) })
		}
		synctest.Wait()
		begun := time.Now()
		w := c.want(503, "GET", "/f", "")
		if w.Header().Get("Retry-After") == "" || time.Since(begun) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), w.Header())
		}
		waiting := make(chan *httptest.ResponseRecorder, 1)
		go func() { waiting <- c.do("HEAD", "/", nil) }()
		synctest.Wait()
		_ = client.Close()
		running.Wait()
		if w := <-waiting; w.Code != 200 {
			t.Errorf("one that waited: %d", w.Code)
		}
	})
}

// TestNormalForms: a Mac writes an accent behind its letter, others have one letter for both.
func TestNormalForms(t *testing.T) {
	c := newClient(t, mount.Options{})
	c.want(201, "PUT", "/u%CC%88", "x") // u and a combining diaeresis
	c.lock("/%C3%BC")
	c.want(423, "PUT", "/u%CC%88", "y")
	c.want(423, "PUT", "/%C3%BC", "y")
	if text := c.want(207, "PROPFIND", "/", "", "Depth: 1").Body.String(); !strings.Contains(text, "<D:href>/%C3%BC</D:href>") {
		t.Error(text)
	}
}

// statHook calls a function after the first look at a path.
type statHook struct {
	*mounttest.Fake
	path  string
	after func()
}

// Stat implements [mount.FS].
func (f *statHook) Stat(ctx context.Context, p string) (mount.Info, error) {
	info, err := f.Fake.Stat(ctx, p)
	if after := f.after; after != nil && p == f.path {
		f.after = nil
		after()
	}
	return info, err
}

// TestLockEmptiesNothing: a lock where nothing was makes an empty file, but not out of one that somebody put there after the
// first look.
func TestLockEmptiesNothing(t *testing.T) {
	hook := &statHook{Fake: mounttest.NewFake(), path: "/f"}
	c := &client{T: t, face: mount.Handler(hook, mount.Options{}), fake: hook.Fake}
	hook.after = func() { c.want(201, "PUT", "/f", "somebody's") }
	c.want(200, "LOCK", "/f", lockBody)
	if got := c.want(200, "GET", "/f", "").Body.String(); got != "somebody's" {
		t.Errorf("the file is %q", got)
	}
	c.want(423, "PUT", "/f", "another's")
}
