package proc

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// execute runs a command from its first process's start until nothing of it is left, on a thread of its own, which lays off
// all rights before and ends after it. All of it happens there, so that a short command costs few turns of the scheduler.
func (r *run) execute(c *command) ended {
	done := make(chan ended, 1)
	go r.onOwnThread(c, done)
	return <-done
}

func (r *run) onOwnThread(c *command, done chan<- ended) {
	runtime.LockOSThread() // and never unlocked: nobody else may get this thread
	if unix.Gettid() == os.Getpid() {
		// What is laid on the first thread counts for the process: a command could signal it. It is kept out of the way.
		go r.onOwnThread(c, done)
		select {}
	}
	defer c.close()
	if err := r.box.sys.layOff(c); err != nil {
		done <- ended{code: codeMissing, err: err}
		return
	}
	h := held{run: r}
	if err := h.start(c); err != nil {
		h.close()
		done <- ended{code: codeMissing, err: err}
		return
	}
	h.watch()
	h.drain()
	h.close()
	done <- h.ended
}

// held is a command that runs, as its thread has it. The thread must live as long as the first process, which dies with it.
type held struct {
	ended
	run    *run
	main   int
	gone   bool          // the first process was reaped
	ends   [3]int        // standard output's and error's reading ends, and the first process's descriptor; -1 when closed
	before time.Duration // of processor time
}

func (h *held) start(c *command) error {
	h.ends = [3]int{-1, -1, -1}
	var out, errs [2]int
	if err := unix.Pipe2(out[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	h.ends[0] = out[0]
	defer unix.Close(out[1])
	if err := unix.Pipe2(errs[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	h.ends[1] = errs[0]
	defer unix.Close(errs[1])
	stdin := uintptr(h.run.box.sys.null)
	if c.stdin != nil {
		stdin = c.stdin.Fd()
	}
	h.before = children()
	pid, err := syscall.ForkExec(c.Path, c.args, &syscall.ProcAttr{
		Dir: c.dir, Env: c.env, Files: []uintptr{stdin, uintptr(out[1]), uintptr(errs[1])},
		// Among namespaces it stays in the child's session, whose priority is lowered as a whole.
		Sys: &syscall.SysProcAttr{Setpgid: h.run.box.sys.first, Setsid: !h.run.box.sys.first, Pdeathsig: syscall.SIGKILL, PidFD: &h.ends[2]},
	})
	if err != nil {
		return err
	}
	bound(pid, c)
	h.main = pid
	h.run.begun(pid)
	return nil
}

// watch passes on the streams, looks at what is used, and returns when nothing of the command is alive.
func (h *held) watch() {
	first := time.Now().Add(lookEvery)
	next := first
	for {
		h.read(max(0, time.Until(next)))
		if now := time.Now(); now.After(next) {
			h.reap(syscall.WNOHANG)
			if !h.gone {
				h.run.look()
			}
			next = now.Add(lookEvery)
		}
		if h.gone {
			if time.Now().After(first) {
				// The kernel may have refused to fork, and the command given up, since it was last looked at.
				h.run.look()
			}
			h.run.box.sys.kill(0)
			h.reap(0)
			h.cpu = children() - h.before
			return
		}
	}
}

// read waits for something to happen, at most as long as told, and takes what there is.
func (h *held) read(wait time.Duration) {
	var list [3]unix.PollFd
	for i, fd := range h.ends { // a negative one is not looked at
		list[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	if _, err := unix.Poll(list[:], int(wait.Milliseconds())+1); err != nil {
		return // interrupted
	}
	for i := range 2 {
		if list[i].Revents != 0 {
			h.take(i)
		}
	}
	switch {
	case h.ends[2] < 0 && !h.gone: // a kernel without descriptors of processes
		h.reap(syscall.WNOHANG)
	case list[2].Revents != 0:
		unix.Close(h.ends[2])
		h.ends[2] = -1
		for !h.gone {
			h.reap(syscall.WNOHANG)
		}
	}
}

// take reads a stream once.
func (h *held) take(i int) {
	buf := h.run.box.sys.buf
	n, err := unix.Read(h.ends[i], buf)
	switch {
	case n > 0:
		h.run.take(i == 1, buf[:n])
	case err != unix.EINTR:
		unix.Close(h.ends[i])
		h.ends[i] = -1
	}
}

// reap takes the exits of those that have ended; without WNOHANG it returns when there is nobody left.
func (h *held) reap(options int) {
	for {
		var status syscall.WaitStatus
		var used syscall.Rusage
		pid, err := syscall.Wait4(-1, &status, options, &used)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil || pid == 0:
			return
		}
		// It begins as this very process, for a moment, so that a command that is smaller counts as large as its runner.
		h.memory = max(h.memory, used.Maxrss<<10)
		if pid == h.main {
			if h.code = status.ExitStatus(); status.Signaled() {
				h.code = signalBase + int(status.Signal())
			}
			h.gone = true
		}
	}
}

// drain reads what is left in the streams. Whoever still holds them is out of reach, and has had its time.
func (h *held) drain() {
	late := time.Now().Add(drainMax)
	for h.ends[0] >= 0 || h.ends[1] >= 0 {
		left := time.Until(late)
		if left <= 0 {
			return
		}
		h.read(left)
	}
}

func (h *held) close() {
	for i, fd := range h.ends {
		if fd >= 0 {
			unix.Close(fd)
			h.ends[i] = -1
		}
	}
}
