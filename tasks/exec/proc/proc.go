// Package proc runs native commands in a runner's child, one at a time, each in a private folder.
//
// All processes that a command starts are frozen, killed and accounted as one, and none is left when its first one has
// ended. What else holds depends on the system; Lacks says in words what does not.
//
//   - Linux with user namespaces: the child is the first process of its own pid, mount, network and ipc namespaces. There is
//     no network, other processes cannot be seen, and killing all but the first process leaves nothing alive, whatever it
//     calls itself and however it was started. The file system is read-only but for the private folders.
//   - Linux with Landlock: a command writes only to its private folder and reads only that, its inputs and the system's
//     folders; nobody's home, and not the peer's keys.
//   - Any Linux: limits on memory, files and processes, counted over all of them.
//   - Elsewhere: a process group (macOS) or a job object (Windows) and a limit on what is written.
package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/tasks/exec/pb"
)

const (
	// procsMax is how many processes a command may have at a time.
	procsMax = 512
	// filesMax is how many files each of them may have open.
	filesMax = 4096
	// entriesMax is how many files and folders there may be in the private folder.
	entriesMax = 200_000
	// lookEvery is how often memory and processes are counted. Short tasks end before the first time.
	lookEvery = 50 * time.Millisecond
	// walkEvery is how often the private folder is measured, and walkShare the part of a core that it may take.
	walkEvery = 250 * time.Millisecond
	walkShare = 20
	// pipeMin is what any pipe takes without a reader, in bytes.
	pipeMin = 4096
	// drainMax is how long the streams may stay open after the last process has ended.
	drainMax = 2 * time.Second
	// pumpBuffer is what is read of a stream at once, in bytes.
	pumpBuffer = 32 << 10
	// signalBase is added to a signal's number for an exit code, as shells do.
	signalBase = 128
	// codeKilled is the exit code of a command that passed a limit.
	codeKilled = signalBase + 9
	// codeMissing is the exit code of a command that could not be started, as shells have it.
	codeMissing = 127
)

// Box is where commands run. Run is called by one goroutine; the other methods by anybody at any time.
type Box struct {
	out   func(stderr bool, p []byte)
	sys   system
	clock *Alarm

	mu     sync.Mutex
	done   uint64 // the last task that ended
	cur    *run
	until  time.Duration
	frozen bool
	early  uint64 // a task that is to be killed before it begins
}

// run is one command.
type run struct {
	task    *pb.Task
	box     *Box
	main    int // the first process's id
	stopped bool

	mu      sync.Mutex
	why     string // why it was killed by a limit
	killed  bool   // it was told to
	room    int64  // bytes of output left
	written int64
	read    int64
	peak    int64 // bytes of memory, by counting
	walked  time.Time
}

// ended says how the first process ended and what all of them used.
type ended struct {
	code   int
	cpu    time.Duration
	memory int64 // greatest resident size of a process, bytes; 0: not known
	err    error // it did not begin
}

// New makes a box that gives what commands write to out, which must not keep it and may be called by two goroutines. grouped
// says that whoever kills this process kills all that it started.
func New(out func(stderr bool, p []byte), grouped bool) *Box {
	b := &Box{out: out}
	b.sys.prepare(grouped)
	b.clock = NewAlarm(b.apply)
	return b
}

// Lacks says what cannot be enforced here.
func (b *Box) Lacks() []string { return b.sys.lacks }

// Until sets when the task stands still; 0 is never. It is first told before the task begins.
func (b *Box) Until(id uint64, t time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id <= b.done {
		return
	}
	b.until = t
	b.clock.Set(t)
	b.settle()
}

// Freeze stops the task's processes, or lets them go on if their time has not come.
func (b *Box) Freeze(id uint64, on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id <= b.done {
		return
	}
	b.frozen = on
	b.settle()
}

func (b *Box) apply() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle()
}

// settle freezes or thaws what runs. The lock is held.
func (b *Box) settle() {
	r := b.cur
	if r == nil || r.main == 0 {
		return
	}
	still := b.frozen || b.until != 0 && pool.BootTime() >= b.until
	if still != r.stopped {
		r.stopped = still
		b.sys.freeze(r.main, still)
	}
}

// Kill ends the task.
func (b *Box) Kill(id uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case id <= b.done:
	case b.cur == nil || b.cur.main == 0:
		b.early = id
	default:
		b.cur.mu.Lock()
		b.cur.killed = true
		b.cur.mu.Unlock()
		b.sys.kill(b.cur.main)
	}
}

// KillAll leaves nothing alive.
func (b *Box) KillAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cur != nil && b.cur.main != 0 {
		b.sys.kill(b.cur.main)
	}
}

// Run runs one task to its end. Id is the caller's to fill in; killed says that it was told to end.
func (b *Box) Run(t *pb.Task) (exit *pb.Exit, killed bool) {
	r := &run{task: t, box: b, room: t.Output}
	exit = r.run()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done, b.cur, b.frozen, b.until = t.Id, nil, false, 0
	b.clock.Set(0)
	return exit, r.killed
}

func (r *run) run() *pb.Exit {
	c, err := r.furnish()
	if err != nil {
		return &pb.Exit{Code: codeMissing, Reason: "its folder could not be made: " + err.Error(), Fault: true}
	}
	if c.Path, err = exec.LookPath(r.task.Path); err != nil {
		c.close()
		return &pb.Exit{Code: codeMissing, Reason: fmt.Sprintf("this machine has no command %.200q", r.task.Path)}
	}
	if c.Path, err = filepath.Abs(c.Path); err != nil {
		c.close()
		return &pb.Exit{Code: codeMissing, Reason: err.Error(), Fault: true}
	}
	return r.result(r.execute(c))
}

// begun is called by execute when the first process runs, from whatever thread.
func (r *run) begun(pid int) {
	b := r.box
	b.mu.Lock()
	defer b.mu.Unlock()
	r.main, b.cur = pid, r
	if b.early == r.task.Id {
		r.killed = true
		b.sys.kill(pid)
	}
	b.settle()
}

// look holds what is used against the limits.
func (r *run) look() {
	u := r.box.sys.usage(r.main)
	r.mu.Lock()
	r.peak = max(r.peak, u.memory)
	r.mu.Unlock()
	switch {
	case u.procs > procsMax:
		r.limit(fmt.Sprintf("it started more than %d processes", procsMax))
	case u.memory > r.task.Memory:
		r.limit(fmt.Sprintf("it used more memory than its limit of %d bytes", r.task.Memory))
	}
	if since := time.Since(r.walked); since >= walkEvery {
		began := time.Now()
		r.measure()
		// The next walk waits longer the longer this one took.
		r.walked = time.Now().Add(walkShare * time.Since(began))
	}
}

// limit kills the command for a reason.
func (r *run) limit(why string) {
	r.mu.Lock()
	if r.why == "" {
		r.why = why
	}
	r.mu.Unlock()
	b := r.box
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cur == r {
		b.sys.kill(r.main)
	}
}

// measure adds up the private folder.
func (r *run) measure() {
	total, entries := int64(0), 0
	_ = filepath.WalkDir(r.task.Dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it was there a moment ago
		}
		if entries++; entries > entriesMax {
			return fs.SkipAll
		}
		if d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	r.mu.Lock()
	streams := r.written
	r.mu.Unlock()
	switch {
	case total+streams > r.task.Output:
		r.limit(fmt.Sprintf("it wrote more than its limit of %d bytes", r.task.Output))
	case entries > entriesMax:
		r.limit(fmt.Sprintf("it made more than %d files", entriesMax))
	}
	r.mu.Lock()
	r.room = min(r.room, r.task.Output-total-streams)
	r.mu.Unlock()
}

// take passes on what was read of a stream, up to the limit.
func (r *run) take(stderr bool, p []byte) {
	r.mu.Lock()
	fits := p[:max(0, min(int64(len(p)), r.room))]
	r.room -= int64(len(fits))
	r.written += int64(len(fits))
	r.mu.Unlock()
	if len(fits) > 0 {
		r.box.out(stderr, fits)
	}
	if len(fits) < len(p) {
		r.limit(fmt.Sprintf("it wrote more than its limit of %d bytes", r.task.Output))
	}
}

// result puts together what is known.
func (r *run) result(e ended) *pb.Exit {
	if e.err != nil {
		return &pb.Exit{Code: codeMissing, Reason: "it could not be started: " + e.err.Error(), Fault: !isCommandFault(e.err)}
	}
	r.measure()
	r.mu.Lock()
	defer r.mu.Unlock()
	exit := &pb.Exit{
		Code: int32(e.code), Reason: r.why, CpuNs: int64(e.cpu), Memory: max(r.peak, e.memory), Read: r.read, Written: r.written,
	}
	if r.why != "" {
		exit.Code = codeKilled
	}
	if r.killed {
		exit.Code, exit.Reason = codeKilled, "killed"
	}
	return exit
}

// isCommandFault: what every machine with this command would say.
func isCommandFault(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "exec format")
}

// command is what is started.
type command struct {
	Path           string
	args, env      []string
	dir            string
	inputs         []string // what may be read beside the system's folders
	stdin          *os.File // nil is nothing
	memory, output int64
}

// close closes what the command has by now.
func (c *command) close() {
	if c.stdin != nil {
		c.stdin.Close()
	}
}

// furnish makes the private folder and all else that the command finds.
func (r *run) furnish() (c *command, err error) {
	t := r.task
	c = &command{dir: t.Dir, memory: t.Memory, output: t.Output, args: append([]string{t.Path}, t.Args...)}
	out, in := filepath.Join(t.Dir, "out"), filepath.Join(t.Dir, "in")
	if err := r.box.sys.open(t.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(out, 0o700); err != nil { // it is there
		return nil, err
	}
	for _, m := range t.Inputs {
		if err := bring(m.Path, filepath.Join(in, filepath.FromSlash(m.Name))); err != nil {
			return nil, err
		}
		c.inputs = append(c.inputs, m.Path)
	}
	c.env = append(base(), "HOME="+t.Dir, "TMPDIR="+t.Dir, "PWD="+t.Dir, "SHOAL_IN="+in, "SHOAL_OUT="+out)
	c.env = append(c.env, t.Env...)
	c.stdin, err = r.source(t.Stdin)
	return c, err
}

// base is what a command has of the peer's environment.
func base() (env []string) {
	for _, name := range []string{"PATH", "LANG", "LC_ALL", "SYSTEMROOT", "PATHEXT"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// bring makes an input appear at a place: as a link, where links may be made.
func bring(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if os.Symlink(from, to) == nil || os.Link(from, to) == nil {
		return nil
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}

// source is the standard input. A whole file is handed over as it is; of a part or a text a pipe is filled.
func (r *run) source(s *pb.Stdin) (*os.File, error) {
	if s == nil || s.Path == "" && len(s.Text) == 0 {
		return nil, nil
	}
	var from io.Reader = strings.NewReader(string(s.Text))
	var file *os.File
	if s.Path != "" {
		f, err := os.Open(s.Path)
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || s.Size < 0 || s.First+s.Size >= info.Size() {
			_, err = f.Seek(s.First, io.SeekStart)
			if info != nil && err == nil {
				r.read = max(0, info.Size()-s.First)
			}
			return f, err
		}
		file, from = f, io.NewSectionReader(f, s.First, s.Size)
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if file == nil && len(s.Text) <= pipeMin {
		_, err := in.Write(s.Text)
		in.Close()
		r.read = int64(len(s.Text))
		return out, err
	}
	go func() {
		n, _ := io.Copy(in, from) // a command need not read all of it
		in.Close()
		if file != nil {
			file.Close()
		}
		r.mu.Lock()
		r.read = n
		r.mu.Unlock()
	}()
	return out, nil
}
