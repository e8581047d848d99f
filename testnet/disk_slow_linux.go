package testnet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What a slow disk takes longer for: about what a worn memory card or a laptop's disk under load does.
const (
	slowSync  = 200 * time.Millisecond // each fsync and fdatasync, of a file or of a folder
	slowWrite = 5 * time.Millisecond   // each write of at most slowChunk: 25 MiB/s to one file
	slowRead  = 2 * time.Millisecond   // each read of at most slowChunk that the kernel's cache does not answer
	slowChunk = 128 << 10              // bytes
	// slowKnown is how long the kernel believes what it was told of names and sizes. All changes pass through it, but for the file
	// that makes a disk full.
	slowKnown = time.Second
	// diskWait is how long the process of a disk may take to answer, or to end.
	diskWait = 10 * time.Second
	slowDone = "done"
)

// slowDisk is a process that serves a peer's home as a file system, which passes everything on to another folder, after a
// while if it is slow. It is not this process, for this one also reads in homes: a thread that waits for a file system is not ended
// before it is answered, and would wait for ever for its own process, once that is killed.
type slowDisk struct {
	home string
	cmd  *exec.Cmd
	in   io.WriteCloser
	said chan string // line by line
}

// startSlow has what is under served at home, not slow yet. Root may do that where there is FUSE.
func startSlow(binary, home, under string) (*slowDisk, error) {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("no disk can be slow here: %w", err)
	}
	f.Close()
	d := &slowDisk{home: home, cmd: exec.Command(binary, DiskCommand, home, under), said: make(chan string, 1)}
	errs := &firstBytes{}
	d.cmd.Stderr = errs
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start a disk: %w", err)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a disk: %w", err)
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a disk: %w", err)
	}
	go func() {
		defer close(d.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			d.said <- lines.Text()
		}
	}()
	if err := d.answer(); err != nil {
		_ = d.close()
		return nil, fmt.Errorf("no disk can be slow here: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return d, nil
}

// answer waits until the process has done what it was told.
func (d *slowDisk) answer() error {
	late := time.NewTimer(diskWait)
	defer late.Stop()
	select {
	case text, ok := <-d.said:
		if ok && text == slowDone {
			return nil
		}
		return errors.New("the disk's process has ended")
	case <-late.C:
		return errors.New("the disk's process does not answer")
	}
}

// set makes the disk slow, or ends that.
func (d *slowDisk) set(slow bool) error {
	word := "ok"
	if slow {
		word = "slow"
	}
	if _, err := fmt.Fprintln(d.in, word); err != nil {
		return fmt.Errorf("a disk becomes %s: %w", word, err)
	}
	if err := d.answer(); err != nil {
		return fmt.Errorf("a disk becomes %s: %w", word, err)
	}
	return nil
}

// close takes the home away, also from those that still use it. With the end of the process the kernel gives an error to whoever
// still waits for the disk, so that nobody does so for ever.
func (d *slowDisk) close() error {
	err := unix.Unmount(d.home, unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) { // it never was mounted, or its process did this already
		err = nil
	}
	_ = d.in.Close()
	late := time.AfterFunc(diskWait, func() { _ = d.cmd.Process.Kill() })
	defer late.Stop()
	for range d.said { // until its output ends
	}
	_ = d.cmd.Wait() // it ends well, or was killed
	return err
}

// RunDisk serves what is under at home until in ends, becomes what each line of in says, and answers with a line.
func RunDisk(home, under string, in io.Reader, out io.Writer) error {
	// Peers end in order when the testnet is interrupted, for which they need their disks.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	root, err := fs.NewLoopbackRoot(under)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	known := slowKnown
	opts := &fs.Options{EntryTimeout: &known, AttrTimeout: &known, MountOptions: fuse.MountOptions{
		FsName: "shoal-testnet", Name: "shoal-testnet", MaxWrite: slowChunk,
		DirectMountStrict: true, // a container has no fusermount
		// With passthrough the kernel would read and write by itself, and never slowly.
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
	}}
	disk := &slowFiles{RawFileSystem: fs.NewNodeFS(root, opts)}
	server, err := fuse.NewServer(disk, home, &opts.MountOptions)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	// Nobody who ends leaves the mount behind.
	defer func() { _ = unix.Unmount(home, unix.MNT_DETACH) }()
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	if _, err := fmt.Fprintln(out, slowDone); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		disk.slow.Store(lines.Text() == "slow")
		if _, err := fmt.Fprintln(out, slowDone); err != nil {
			return fmt.Errorf("disk: %w", err)
		}
	}
	return lines.Err()
}

// slowFiles is a file system that takes its time while it is slow. Each request has a goroutine of its own.
type slowFiles struct {
	fuse.RawFileSystem
	slow atomic.Bool
}

// after is waited for to its end: a runtime interrupts its own threads all the time, and a disk does not care.
func (f *slowFiles) after(d time.Duration) {
	if f.slow.Load() {
		time.Sleep(d)
	}
}

func (f *slowFiles) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	f.after(slowSync)
	return f.RawFileSystem.Fsync(cancel, in)
}

func (f *slowFiles) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	f.after(slowSync)
	return f.RawFileSystem.FsyncDir(cancel, in)
}

// Writev is what each write comes to first, whether or not the file system can do it.
func (f *slowFiles) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	f.after(slowWrite)
	return f.RawFileSystem.Writev(cancel, in, data)
}

func (f *slowFiles) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f.after(slowRead)
	return f.RawFileSystem.Read(cancel, in, buf)
}

// firstBytes keeps the beginning of what is written to it.
type firstBytes struct{ strings.Builder }

const firstBytesMax = 1 << 10

func (b *firstBytes) Write(p []byte) (int, error) {
	b.Builder.Write(p[:min(len(p), max(0, firstBytesMax-b.Len()))])
	return len(p), nil
}
