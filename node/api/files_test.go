package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/node/api/client"
)

// fakeFiles answers with what it was asked.
type fakeFiles struct{ Filer }

var errMissing = client.Errorf(client.KindNotFound, "look elsewhere", "no such path")

func (fakeFiles) FileList(_ context.Context, path string, opt client.ListOptions) iter.Seq2[client.PoolFile, error] {
	return func(yield func(client.PoolFile, error) bool) {
		switch path {
		case "/missing":
			yield(client.PoolFile{}, errMissing)
		case "/broken":
			_ = yield(client.PoolFile{Path: "/broken/a", Kind: "file"}, nil) && yield(client.PoolFile{}, errMissing)
		default:
			for i := range 5000 {
				if !yield(client.PoolFile{Path: fmt.Sprintf("%s/%d %v %v %q", path, i, opt.Long, opt.Recursive, opt.Pattern), Kind: "file"}, nil) {
					return
				}
			}
		}
	}
}

func (fakeFiles) FileStat(_ context.Context, path string) (client.PoolFile, error) {
	if path == "/missing" {
		return client.PoolFile{}, errMissing
	}
	return client.PoolFile{Path: path, Kind: "folder"}, nil
}

func (fakeFiles) FileWrite(_ context.Context, path string, copies int, r io.Reader) (client.FileTransfer, error) {
	n, err := io.Copy(io.Discard, r)
	if path == "/full" {
		return client.FileTransfer{}, client.Errorf(client.KindNoSpace, "", "full")
	}
	return client.FileTransfer{Path: path, Size: n, Copies: copies}, err
}

func (fakeFiles) FilePut(_ context.Context, req client.FilePutRequest, progress func(client.Progress)) (client.FileTransfer, error) {
	progress(client.Progress{Phase: "storing", Done: 1})
	return client.FileTransfer{Path: req.Path, Files: 1, Wanted: req.Copies}, nil
}

func (fakeFiles) FileChange(_ context.Context, what FileChange, req client.FileRequest) (client.FileChange, error) {
	if what != FileMove || req.To != "/b" || !req.Force {
		return client.FileChange{}, fmt.Errorf("%s %+v", what, req)
	}
	return client.FileChange{Changed: 7}, nil
}

func (fakeFiles) FileWhatIf(_ context.Context, remove string) (client.WhatIf, error) {
	return client.WhatIf{Peer: remove, Lost: []string{"/a"}, Losses: 1}, nil
}

func (fakeFiles) Mount(ctx context.Context, req client.MountRequest, ready func(client.Mounted) error) error {
	if req.Listen == "taken" {
		return client.Errorf(client.KindInvalid, "", "taken")
	}
	if err := ready(client.Mounted{URL: "http://" + req.Listen, Password: "p"}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func TestFileListings(t *testing.T) {
	_, c := serve(t, &fake{}, NetworkUnix)
	list := func(path string, opt client.ListOptions) (paths []string, err error) {
		err = c.FileList(t.Context(), path, opt, func(f client.PoolFile) error { paths = append(paths, f.Path); return nil })
		return paths, err
	}
	got, err := list("/a b&c", client.ListOptions{Long: true, Pattern: "*.x"})
	if err != nil || len(got) != 5000 || got[7] != `/a b&c/7 true false "*.x"` {
		t.Errorf("%d %v", len(got), err)
	}
	if got, err := list("/missing", client.ListOptions{}); client.KindOf(err) != client.KindNotFound || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
	got, err = list("/broken", client.ListOptions{})
	var e *client.Error
	if !errors.As(err, &e) || e.Hint != "look elsewhere" || !slices.Equal(got, []string{"/broken/a"}) {
		t.Errorf("%v %v", got, err)
	}
	names := func(path string) (paths []string, err error) {
		err = c.FileNames(t.Context(), path, true, func(p []byte) error { paths = append(paths, string(p)); return nil })
		return paths, err
	}
	if got, err := names("/a b&c"); err != nil || len(got) != 5000 || got[7] != `/a b&c/7 false true ""` {
		t.Errorf("%d %v", len(got), err)
	}
	if got, err := names("/missing"); client.KindOf(err) != client.KindNotFound || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
	if got, err := names("/broken"); !errors.As(err, &e) || e.Hint != "look elsewhere" || !slices.Equal(got, []string{"/broken/a"}) {
		t.Errorf("%v %v", got, err)
	}
	stop := errors.New("enough")
	if err := c.FileList(t.Context(), "/", client.ListOptions{}, func(client.PoolFile) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	if f, err := c.FileStat(t.Context(), "/x"); err != nil || f.Path != "/x" || f.Kind != "folder" {
		t.Errorf("%v %v", f, err)
	}
}

func TestFileChanges(t *testing.T) {
	_, c := serve(t, &fake{}, NetworkTCP)
	if out, err := c.FileMove(t.Context(), client.FileRequest{Path: "/a", To: "/b", Force: true}); err != nil || out.Changed != 7 {
		t.Errorf("%v %v", out, err)
	}
	if w, err := c.FileWhatIf(t.Context(), "bob & co"); err != nil || w.Peer != "bob & co" || w.Losses != 1 {
		t.Errorf("%v %v", w, err)
	}
	// More than any other request may have, and more than is kept in memory.
	long := strings.Repeat("x", 3<<20)
	if out, err := c.FileWrite(t.Context(), "/w", 2, strings.NewReader(long)); err != nil || out.Size != int64(len(long)) || out.Copies != 2 {
		t.Errorf("%v %v", out, err)
	}
	if _, err := c.FileWrite(t.Context(), "/full", 2, strings.NewReader("x")); client.KindOf(err) != client.KindNoSpace {
		t.Error(err)
	}
	phases := 0
	out, err := c.FilePut(t.Context(), client.FilePutRequest{Source: "/s", Path: "/p", Copies: 4}, func(client.Progress) { phases++ })
	if err != nil || out.Wanted != 4 || phases != 1 {
		t.Errorf("%v %v %d", out, err, phases)
	}
}

func TestMount(t *testing.T) {
	_, c := serve(t, &fake{}, NetworkUnix)
	ctx, cancel := context.WithCancel(t.Context())
	told := client.Mounted{}
	if err := c.FileMount(ctx, client.MountRequest{Listen: "127.0.0.1:1"}, func(m client.Mounted) error { told = m; cancel(); return nil }); err != nil {
		t.Error(err)
	}
	if told.Password != "p" {
		t.Errorf("%+v", told)
	}
	if err := c.FileMount(t.Context(), client.MountRequest{Listen: "taken"}, nil); client.KindOf(err) != client.KindInvalid {
		t.Error(err)
	}
}
