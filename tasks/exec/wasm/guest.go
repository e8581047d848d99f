package wasm

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	wsys "github.com/tetratelabs/wazero/sys"

	"github.com/shoal-os/shoal/tasks/exec/pb"
)

// codeKilled is the exit code of a guest that passed a limit.
const codeKilled = 137

// sleepMax is how long one sleep of a guest is; a longer one is cut, as any sleep may be.
const sleepMax = time.Hour

// limitError ends a guest from within its call of the host, by panic: an error code it might ignore.
type limitError struct{ text string }

func (e *limitError) Error() string { return e.text }

// guest is one run.
type guest struct {
	engine  *Engine
	task    *pb.Task
	room    int64 // bytes of output left
	read    int64
	written int64
	space   *space
	stdin   *os.File
}

func (g *guest) config() wazero.ModuleConfig {
	c := wazero.NewModuleConfig().WithName("").WithStartFunctions("_start").
		WithArgs(append([]string{"program.wasm"}, g.task.Args...)...).
		WithStdout(stream{g, false}).WithStderr(stream{g, true}).
		WithWalltime(g.walltime, wsys.ClockResolution(time.Microsecond)).
		WithNanotime(g.nanotime, wsys.ClockResolution(time.Nanosecond)).
		WithNanosleep(g.sleep).WithOsyield(func() { g.engine.breathe(1) }).
		WithRandSource(random{g})
	for _, v := range g.task.Env {
		name, value, _ := strings.Cut(v, "=")
		c = c.WithEnv(name, value)
	}
	if s := g.task.Stdin; len(s.GetText()) > 0 || s.GetPath() != "" {
		c = c.WithStdin(g.source(s))
	}
	g.space = &space{guest: g}
	return c.WithFSConfig(wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(g.space, "/"))
}

func (g *guest) close() {
	if g.space != nil {
		g.space.close()
	}
	if g.stdin != nil {
		g.stdin.Close()
	}
}

// spend takes n bytes of the room for output, and ends the guest if there are not as many. What is given back is negative.
func (g *guest) spend(n int64) {
	if n > g.room {
		g.room = 0
		panic(&limitError{fmt.Sprintf("it wrote more than its limit of %d bytes", g.task.Output)})
	}
	g.room -= n
}

// source opens standard input when the guest first reads it.
func (g *guest) source(s *pb.Stdin) io.Reader {
	if s.Path == "" {
		return counted{g, strings.NewReader(string(s.Text))}
	}
	return &lazy{g: g, spec: s}
}

// lazy is standard input from a file.
type lazy struct {
	g    *guest
	spec *pb.Stdin
	r    io.Reader
}

func (l *lazy) Read(p []byte) (int, error) {
	if l.r == nil {
		f, err := os.Open(l.spec.Path)
		if err != nil {
			return 0, err
		}
		l.g.stdin = f
		size := l.spec.Size
		if size < 0 {
			size = 1<<62 - l.spec.First
		}
		l.r = counted{l.g, io.NewSectionReader(f, l.spec.First, size)}
	}
	return l.r.Read(p)
}

// counted counts what is read.
type counted struct {
	g *guest
	r io.Reader
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.g.read += int64(n)
	c.g.engine.breathe(1)
	return n, err
}

// stream is standard output or error.
type stream struct {
	g      *guest
	stderr bool
}

func (s stream) Write(p []byte) (int, error) {
	g := s.g
	g.engine.breathe(1)
	fits := p[:min(int64(len(p)), g.room)]
	g.written += int64(len(fits))
	g.engine.out(s.stderr, fits)
	g.spend(int64(len(p)))
	return len(p), nil
}

func (g *guest) walltime() (sec int64, nsec int32) {
	g.engine.breathe(1)
	now := time.Now()
	return now.Unix(), int32(now.Nanosecond())
}

var began = time.Now()

func (g *guest) nanotime() int64 {
	g.engine.breathe(1)
	return int64(time.Since(began)) + 1
}

func (g *guest) sleep(ns int64) {
	g.engine.breathe(1)
	time.Sleep(min(time.Duration(ns), sleepMax))
}

// random gives random bytes.
type random struct{ g *guest }

func (r random) Read(p []byte) (int, error) {
	r.g.engine.breathe(1 + len(p)>>10)
	return rand.Read(p)
}
