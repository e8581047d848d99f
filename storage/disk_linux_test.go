package storage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk is a file system of its own of so many bytes. It takes root.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A disk that clearly has no room is refused before anything is fetched.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "4m")
	a, b := newPeer(t), newPeer(t)
	sh, _ := a.shareFile(t, mib(50, 8))
	res, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: filepath.Join(disk, "out")}, nil)
	if !errors.Is(err, ErrSpace) || res.Fetched != 0 {
		t.Fatalf("fetched %d, err = %v", res.Fetched, err)
	}
	if names, _ := os.ReadDir(disk); len(names) != 0 {
		t.Errorf("left over: %v", names)
	}
}

// A disk that fills up while bytes arrive: the error says so, what is there
// stays, and the same get goes on once there is room.
func TestDiskFillsUp(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string][]byte{
		"file": {"": mib(51, 8)},
		"folder": {
			"a": mib(52, 2), "b": mib(53, 2), "c": mib(54, 2), "d": mib(55, 2),
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := smallDisk(t, "16m")
			g, change := gated(3 << 20)
			a, b := startPeer(t, t.TempDir(), change), newPeer(t)
			t.Cleanup(g.open)
			src := filepath.Join(t.TempDir(), "src")
			for path, data := range files {
				write(t, filepath.Join(src, path), data)
			}
			sh, err := a.Share(testContext(t), src, ShareOptions{}, nil)
			must(t, err)
			out, filler := filepath.Join(disk, "out"), filepath.Join(disk, "filler")
			done := make(chan error)
			go func() {
				_, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil)
				done <- err
			}()
			<-g.full
			if err := os.WriteFile(filler, make([]byte, 32<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("the disk is not full: %v", err)
			}
			g.open()
			err = <-done
			if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "no space left") {
				t.Fatalf("err = %v", err)
			}
			r, ok := b.store.Root(sh.Root)
			if !ok || !exists(out+partialSuffix) || exists(out) {
				t.Fatal("no partial is left")
			}
			marked := int64(r.HaveCount()) << 20
			must(t, os.Remove(filler))
			res, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil)
			must(t, err)
			sameTree(t, src, out)
			if res.Fetched != 8<<20-marked {
				t.Errorf("%d bytes were here, and %d came", marked, res.Fetched)
			}
		})
	}
}

// The store's own disk may be full, too.
func TestStoreDiskFull(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "1m")
	a := newPeer(t)
	b := startPeer(t, t.TempDir(), func(c *Config) { c.Dir = filepath.Join(disk, "store") })
	sh, path := a.shareFile(t, mib(56, 3))
	if err := os.WriteFile(filepath.Join(disk, "filler"), make([]byte, 2<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	parent := t.TempDir()
	if _, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: filepath.Join(parent, "out")}, nil); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("get: %v", err)
	}
	if names, _ := os.ReadDir(parent); len(names) != 0 {
		t.Errorf("left over: %v", names)
	}
	if _, err := b.Share(testContext(t), path, ShareOptions{}, nil); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("share: %v", err)
	}
	must(t, os.Remove(filepath.Join(disk, "filler")))
	out := filepath.Join(parent, "out")
	if _, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil); err != nil {
		t.Fatal(err)
	}
	same(t, out, mib(56, 3))
}

func TestReadOnlyDestination(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "4m")
	a, b := newPeer(t), newPeer(t)
	data := mib(57, 1)
	sh, _ := a.shareFile(t, data)
	there := filepath.Join(disk, "there")
	write(t, there, data)
	must(t, unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	start := time.Now()
	for _, dest := range []string{filepath.Join(disk, "out"), filepath.Join(disk, "deep", "er", "out")} {
		res, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: dest}, nil)
		if !errors.Is(err, unix.EROFS) || res.Fetched != 0 {
			t.Errorf("fetched %d, err = %v", res.Fetched, err)
		}
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("it took %v to say so", d)
	}
	// What is there already needs nothing to be written.
	if res, err := b.Get(testContext(t), a.link(t, sh), GetOptions{Dest: there}, nil); err != nil || res.Fetched != 0 {
		t.Errorf("there already: fetched %d, %v", res.Fetched, err)
	}
}
