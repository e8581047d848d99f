package testnet

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// aDisk is a disk that can be slow, and the folder under it.
func aDisk(t *testing.T) (d *slowDisk, home, under string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("there is no FUSE here: %v", err)
	} else {
		f.Close()
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home, under = filepath.Join(t.TempDir(), "home"), filepath.Join(t.TempDir(), "disk")
	for _, dir := range []string{home, under} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d, err = startSlow(exe, home, under)
	if err != nil && strings.Contains(err.Error(), syscall.EPERM.Error()) { // as its process says
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
			t.Errorf("the disk is still there: %v, %v", left, err)
		}
	})
	return d, home, under
}

// TestADiskIsAFileSystem: what peers do in their homes can be done, and is there under the disk.
func TestADiskIsAFileSystem(t *testing.T) {
	d, home, under := aDisk(t)
	must(t, d.set(true))
	want := bytes.Repeat([]byte("shoal"), 100_000)
	must(t, os.MkdirAll(filepath.Join(home, "a/b"), 0o700))
	path := filepath.Join(home, "a/b/file")
	must(t, os.WriteFile(path+".new", want, 0o600))
	must(t, os.WriteFile(path, []byte("before"), 0o600))
	old, err := os.Open(path)
	must(t, err)
	defer old.Close()
	must(t, os.Rename(path+".new", path))
	for _, p := range []string{path, filepath.Join(under, "a/b/file")} {
		if got, err := os.ReadFile(p); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", p, len(got), err)
		}
	}
	// Who has the former file open goes on with it.
	if info, err := old.Stat(); err != nil || info.Size() != int64(len("before")) {
		t.Errorf("%v, %v", info, err)
	}

	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	again, err := os.Open(path)
	must(t, err)
	defer again.Close()
	if err := unix.Flock(int(again.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a second lock: %v", err)
	}
	_, err = f.WriteString("end")
	must(t, err)
	must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20))
	m, err := unix.Mmap(int(f.Fd()), 0, len(want)+3, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	if !bytes.Equal(m, append(want, "end"...)) {
		t.Error("the mapping has other bytes")
	}
	m[0] = 'S'
	must(t, unix.Msync(m, unix.MS_SYNC))
	must(t, unix.Munmap(m))
	if got, err := os.ReadFile(filepath.Join(under, "a/b/file")); err != nil || got[0] != 'S' || len(got) != len(want)+3 {
		t.Errorf("what was written to the mapping is not there: %v", err)
	}
	must(t, f.Truncate(8<<20))
	if info, err := os.Stat(path); err != nil || info.Size() != 8<<20 || info.Sys().(*syscall.Stat_t).Blocks > 4<<20/512 {
		t.Errorf("a file with a hole: %+v, %v", info, err)
	}

	l, err := net.Listen("unix", filepath.Join(home, "socket"))
	must(t, err)
	defer l.Close()
	c, err := net.Dial("unix", filepath.Join(home, "socket"))
	must(t, err)
	c.Close()
	must(t, os.RemoveAll(filepath.Join(home, "a")))
	if _, err := os.Stat(filepath.Join(under, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed, and %v", err)
	}
}

// TestASlowDiskIsSlow: a sync, of a file or of a folder, takes its time while the disk is slow, and not before and after. Many do at once.
func TestASlowDiskIsSlow(t *testing.T) {
	d, home, _ := aDisk(t)
	f, err := os.Create(filepath.Join(home, "file"))
	must(t, err)
	defer f.Close()
	dir, err := os.Open(home)
	must(t, err)
	defer dir.Close()
	took := func(do func() error) time.Duration {
		t.Helper()
		began := time.Now()
		must(t, do())
		return time.Since(began)
	}
	data := func() error { return unix.Fdatasync(int(f.Fd())) }
	write := func() error { _, err := f.Write(make([]byte, 4*slowChunk)); return err }
	// The machine may be busy for a moment, but not each time.
	quick := func(do func() error) {
		t.Helper()
		for range 20 {
			if took(do) < slowSync {
				return
			}
		}
		t.Errorf("a sync takes %v each time", slowSync)
	}
	for range 2 {
		quick(f.Sync)
		quick(dir.Sync)
		must(t, d.set(true))
		for _, sync := range []func() error{f.Sync, data, dir.Sync} {
			if n := took(sync); n < slowSync {
				t.Errorf("a sync took %v", n)
			}
		}
		if n := took(write); n < 4*slowWrite {
			t.Errorf("a write took %v", n)
		}
		must(t, d.set(false))
	}
	must(t, d.set(true))
	// What was just written is in the kernel's cache until the file is opened again.
	must(t, f.Sync())
	again, err := os.Open(f.Name())
	must(t, err)
	defer again.Close()
	read := func() error { _, err := again.ReadAt(make([]byte, 4*slowChunk), 0); return err }
	if n := took(read); n < slowRead {
		t.Errorf("a read took %v", n)
	}
	const many = 64
	var all sync.WaitGroup
	n := took(func() error {
		for range many {
			all.Go(func() {
				f, err := os.CreateTemp(home, "many")
				if err == nil {
					err = errors.Join(f.Sync(), f.Close())
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		return nil
	})
	if n > many*slowSync/2 {
		t.Errorf("%d syncs waited for each other: %v", many, n)
	}
}

// TestWhatWasWrittenOutlivesItsWriter: kill -9 takes nothing away that a write has returned for, also on a slow disk.
func TestWhatWasWrittenOutlivesItsWriter(t *testing.T) {
	d, home, under := aDisk(t)
	must(t, d.set(true))
	path := filepath.Join(home, "lines")
	// A line is said after it was written.
	cmd := exec.Command("sh", "-c", `while echo line >>"$0"; do echo said; done`, path)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	said := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if said++; said == 10 {
			must(t, cmd.Process.Kill())
		}
	}
	_ = cmd.Wait()
	for _, p := range []string{path, filepath.Join(under, "lines")} {
		got, err := os.ReadFile(p)
		if lines := bytes.Count(got, []byte("line\n")); err != nil || lines < said || said < 10 {
			t.Errorf("%s: %d lines of %d, %v", p, lines, said, err)
		}
	}
}

// TestNobodyWaitsForADiskThatIsGone: who waits for the disk when its process is killed gets an error.
func TestNobodyWaitsForADiskThatIsGone(t *testing.T) {
	d, home, _ := aDisk(t)
	must(t, d.set(true))
	f, err := os.Create(filepath.Join(home, "file"))
	must(t, err)
	defer f.Close()
	ended := make(chan error, 1)
	go func() {
		for {
			if err := f.Sync(); err != nil {
				ended <- err
				return
			}
		}
	}()
	must(t, d.cmd.Process.Kill())
	select {
	case <-ended:
	case <-time.After(diskWait):
		t.Error("it still waits")
	}
	if err := d.set(false); err == nil {
		t.Error("a disk that is gone was changed")
	}
}
