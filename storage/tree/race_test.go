package tree

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-os/shoal/storage/directory"
)

// slowNames is a directory whose disk is slow: it takes changes one after the other, and who leaves meanwhile does not
// take them back.
type slowNames struct {
	*fakeNames
	jobs chan func()
}

func newSlowNames(f *fakeNames) *slowNames { return &slowNames{f, make(chan func(), 16)} }

// Write implements Names.
func (s *slowNames) Write(ctx context.Context, changes ...directory.Change) error {
	done := make(chan error, 1)
	s.jobs <- func() { done <- s.fakeNames.Write(context.WithoutCancel(ctx), changes...) }
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work lets the disk do what waits, until nobody brings more.
func (s *slowNames) work() {
	for {
		synctest.Wait()
		select {
		case f := <-s.jobs:
			f()
		default:
			return
		}
	}
}

// TestLeftWhileItIsWritten: a writer that leaves while its name is being written keeps its turn until it is: the next one
// sees it and makes no conflict. What it wrote is not let go of before, either, and it hears what has become of it.
func TestLeftWhileItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "ann")
		slow := newSlowNames(b.names)
		b.cfg.Names = slow
		leaving, leave := context.WithCancel(ctx)
		w, err := b.Create(leaving, "/f", CreateOptions{})
		b.ok(err)
		_, err = w.Write([]byte("first"))
		b.ok(err)
		closed := make(chan error, 1)
		go func() { closed <- w.Close() }()
		synctest.Wait()
		leave()
		synctest.Wait()
		b.bytes.mu.Lock()
		batches := b.bytes.batches
		b.bytes.mu.Unlock()
		if batches != 1 {
			t.Error("the bytes were let go of before it is known whether they have a name")
		}
		if b.writing.TryLock() {
			b.writing.Unlock()
			t.Error("the next writer has its turn before it can see the version")
		}
		slow.work()
		if err := <-closed; err != nil {
			t.Errorf("the file is there, and its writer hears %v", err)
		}
		b.shows(map[string]string{"/f": "first"})
		b.ok(b.Close())
	})
}

// TestFolderOverFile: a folder that is made for what is put in it does not take the place of a file that came there meanwhile.
func TestFolderOverFile(t *testing.T) {
	for name, path := range map[string]string{"for a file": "/d/f", "for a file deeper": "/d/e/f"} {
		b := newBench(t, "ann")
		p := b.NewPut(PutOptions{})
		b.ok(p.File(ctx, path, 0o644, birth, strings.NewReader("inside")))
		b.ok(create(b, "/d", "a file"))
		res, err := p.Commit(ctx)
		b.want(err, ErrNotFolder)
		if res.Files != 0 {
			t.Errorf("%s: %d files were put", name, res.Files)
		}
		if text, err := b.cat("/d"); err != nil || text != "a file" {
			t.Errorf("%s: the file is %q, %v", name, text, err)
		}
		b.shows(map[string]string{"/d": "a file"})
	}
	b := newBench(t, "ann")
	p := b.NewPut(PutOptions{})
	b.ok(p.Folder(ctx, "/d", 0, birth))
	b.ok(create(b, "/d", "a file"))
	_, err := p.Commit(ctx)
	b.want(err, ErrNotFolder)
	b.shows(map[string]string{"/d": "a file"})
}

// TestNewMeansNew: what may only be made where nothing is does not take the place of what came there after the first look.
func TestNewMeansNew(t *testing.T) {
	for name, f := range map[string]func(*bench) error{
		"mkdir": func(b *bench) error { return b.Mkdir(ctx, "/to", MkdirOptions{}) },
		"mkdir with parents": func(b *bench) error {
			return b.Mkdir(ctx, "/to/a/b", MkdirOptions{Parents: true})
		},
		"move": func(b *bench) error { return b.Move(ctx, "/d", "/to", false) },
		"copy": func(b *bench) error { return b.Copy(ctx, "/d", "/to", false) },
	} {
		b := newBench(t, "ann")
		// A folder without a record of its own gets one with the present time: between the first look and the writing.
		b.ok(b.save(ctx, []draft{b.fileDraft("/d/f", fileOf64(t, b, "x"), 0o644, birth, 3)}))
		came := false
		b.cfg.Now = func() time.Time {
			if !came {
				came = true
				b.ok(create(b, "/to", "somebody's"))
			}
			return b.names.time()
		}
		err := f(b)
		if !errors.Is(err, ErrExist) && !errors.Is(err, ErrNotFolder) {
			t.Errorf("%s: the error is %v", name, err)
		}
		if got, want := b.show(), map[string]string{"/d/": "", "/d/f": "x", "/to": "somebody's"}; !maps.Equal(got, want) {
			t.Errorf("%s: shown is %v, want %v", name, got, want)
		}
	}
	b := newBench(t, "ann")
	w, err := b.Create(ctx, "/to", CreateOptions{Exclusive: true})
	b.ok(err)
	b.ok(create(b, "/to", "somebody's"))
	b.want(w.Close(), ErrExist)
	b.shows(map[string]string{"/to": "somebody's"})
}

// TestPutOverConflict: a file that is put in the place of a conflict replaces it, or both are as they were: when the power goes
// in between, and when the file is refused.
func TestPutOverConflict(t *testing.T) {
	conflicting := func() (*bench, string) {
		a, b := newBench(t, "ann"), newBench(t, "bob")
		b.ok(b.put("/f", "theirs"))
		b.names.pass(time.Second)
		a.names.pass(time.Minute)
		a.ok(a.put("/f", "ours"))
		meet(a.names, b.names)
		maps.Copy(a.bytes.durable, b.bytes.durable)
		for path, text := range a.show() {
			if text == "theirs" {
				return a, path
			}
		}
		t.Fatal("there is no conflict")
		return nil, ""
	}
	has := func(b *bench, texts ...string) bool {
		for _, got := range b.show() {
			if slices.Contains(texts, got) {
				return true
			}
		}
		return false
	}
	for steps := range 4 {
		b, path := conflicting()
		b.names.power = &power{left: steps}
		_ = b.put(path, "new")
		b.names.power = nil
		if b = openBench(t, b.names, b.bytes); !has(b, "theirs", "new") {
			t.Errorf("after %d steps shown is %v", steps, b.show())
		}
	}
	b, path := conflicting()
	p := b.NewPut(PutOptions{})
	b.ok(p.File(ctx, path, 0o644, birth, strings.NewReader("new")))
	b.ok(b.save(ctx, []draft{b.folderDraft(path, 0o755, birth)})) // as another peer's record
	_, err := p.Commit(ctx)
	b.want(err, ErrIsFolder)
	if !has(b, "theirs") {
		t.Errorf("after a refusal shown is %v", b.show())
	}
}
