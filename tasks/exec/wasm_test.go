package exec

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/tasks/exec/wasm/wat"
	"github.com/shoal-os/shoal/tasks/job"
)

// waitMax is how long a test waits for anything, on a machine however busy.
const waitMax = 3 * time.Minute

func openPool(t testing.TB, change func(*Config)) *Pool {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), Cores: 4}
	if change != nil {
		change(&cfg)
	}
	p, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// module writes a module to a file of its own.
func module(t testing.TB, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "module.wasm")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wasmTask is a task for a module, with its streams.
func wasmTask(t testing.TB, raw []byte) (Task, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	var out, errs bytes.Buffer
	path := module(t, raw)
	return Task{
		Kind: job.Wasm, Module: path, ModuleID: path, Dir: filepath.Join(t.TempDir(), "attempt"),
		Limits: job.Resources{Cores: 1, Memory: 64 << 20, Wall: waitMax, Output: 1 << 20},
		Stdout: &out, Stderr: &errs,
	}, &out, &errs
}

// finish runs a task to its end.
func finish(t testing.TB, p *Pool, task Task) Exit {
	t.Helper()
	a, err := p.Start(task)
	if err != nil {
		t.Fatal(err)
	}
	return await(t, a)
}

// TestThisMachinesFault: that a module's bytes, or a place for its code, are missing here is not the task's fault, and must not count
// against it: three such peers would end the job.
func TestThisMachinesFault(t *testing.T) {
	p := openPool(t, nil)
	task, _, _ := wasmTask(t, wat.Nothing())
	task.Module += ".gone"
	if e := finish(t, p, task); !e.Fault || e.Reason == "" {
		t.Errorf("no bytes: %+v", e)
	}
	task, _, _ = wasmTask(t, wat.Nothing())
	if err := os.WriteFile(filepath.Join(p.cfg.Dir, "wasm"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := finish(t, p, task); !e.Fault || e.Reason == "" {
		t.Errorf("no place: %+v", e)
	}
	if err := os.Remove(filepath.Join(p.cfg.Dir, "wasm")); err != nil {
		t.Fatal(err)
	}
	task, _, _ = wasmTask(t, []byte("nonsense"))
	if e := finish(t, p, task); e.Fault || e.Reason == "" {
		t.Errorf("no module: %+v", e)
	}
}

func await(t testing.TB, a *Attempt) Exit {
	t.Helper()
	select {
	case <-a.Done():
	case <-time.After(waitMax):
		t.Fatal("the attempt does not end")
	}
	return a.Exit()
}

func TestHello(t *testing.T) {
	p := openPool(t, nil)
	task, out, errs := wasmTask(t, wat.Hello())
	if err := p.Prepare(context.Background(), job.Wasm, task.Module, task.ModuleID); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		out.Reset()
		e := finish(t, p, task)
		if e.Code != 0 || e.Reason != "" || out.String() != "hello\n" || errs.Len() != 0 {
			t.Fatalf("%+v, %q, %q", e, out, errs)
		}
		if e.Usage.Wall <= 0 || e.Usage.Memory != 64<<10 || e.Usage.Written != 6 {
			t.Errorf("usage %+v", e.Usage)
		}
	}
}

func TestHostileModules(t *testing.T) {
	p := openPool(t, nil)
	for name, c := range map[string]struct {
		raw    []byte
		wall   time.Duration
		reason string
		code   int
	}{
		"exit code":           {wat.Exit(7), waitMax, "", 7},
		"loops":               {wat.Loop(), 300 * time.Millisecond, "longer than its limit", CodeKilled},
		"start function":      {wat.StartLoop(), 300 * time.Millisecond, "longer than its limit", CodeKilled},
		"traps":               {wat.Trap(), waitMax, "trapped: unreachable", CodeTrap},
		"recurses":            {wat.Recurse(), waitMax, "trapped: stack overflow", CodeTrap},
		"allocates":           {wat.Grow(), waitMax, "memory", CodeTrap},
		"begins too large":    {wat.Large(2000), waitMax, "begins with more memory", CodeTrap},
		"writes without end":  {wat.Shout(), waitMax, "wrote more than its limit", CodeKilled},
		"is no module":        {[]byte("#!/bin/sh\n"), waitMax, "no WebAssembly module", CodeTrap},
		"is cut":              {wat.Hello()[:40], waitMax, "no WebAssembly module", CodeTrap},
		"is empty":            {nil, waitMax, "no WebAssembly module", CodeTrap},
		"is a library":        {wat.Library(), waitMax, "no _start", CodeTrap},
		"needs something":     {wat.Needs("env", "socket"), waitMax, `needs "socket" of "env"`, CodeTrap},
		"makes large tables":  {wat.Tables(), waitMax, "memory", CodeKilled},
		"has a huge function": {wat.Huge(200_000), waitMax, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task, out, _ := wasmTask(t, c.raw)
			task.Limits.Wall = c.wall
			e := finish(t, p, task)
			if e.Code != c.code || !strings.Contains(e.Reason, c.reason) || (c.reason == "") != (e.Reason == "") || e.Fault {
				t.Errorf("%+v", e)
			}
			if name == "writes without end" && int64(out.Len()) != task.Limits.Output {
				t.Errorf("%d bytes came through, the limit is %d", out.Len(), task.Limits.Output)
			}
		})
	}
}

// TestModuleSeesOnlyItsFiles: what a guest may open, by the error number of WASI that it ends with.
func TestModuleSeesOnlyItsFiles(t *testing.T) {
	const (
		ok     = 0
		exist  = 20
		inval  = 28
		isDir  = 31
		noEnt  = 44
		notDir = 54
		perm   = 63
		roFS   = 69
	)
	p := openPool(t, nil)
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	folder := filepath.Join(outside, "folder")
	if err := os.MkdirAll(filepath.Join(folder, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{secret, filepath.Join(folder, "file"), filepath.Join(folder, "sub", "file")} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	links := os.Symlink(secret, filepath.Join(folder, "absolute")) == nil &&
		os.Symlink("../secret", filepath.Join(folder, "up")) == nil &&
		os.Symlink("sub/file", filepath.Join(folder, "inside")) == nil
	for _, c := range []struct {
		path   string
		create bool
		code   int
		link   bool
	}{
		{path: "in/secret", code: ok},
		{path: "in/a/b/c", code: ok},
		{path: "in", code: ok},
		{path: ".", code: ok},
		{path: "in/folder", code: ok},
		{path: "in/folder/file", code: ok},
		{path: "in/folder/sub/file", code: ok},
		{path: "in/folder/sub/../file", code: ok},
		{path: "in/folder/inside", code: ok, link: true},
		{path: "in/folder/absolute", code: perm, link: true},
		{path: "in/folder/up", code: perm, link: true},
		{path: "in/folder/../../../secret", code: perm},
		{path: "in/../../secret", code: perm},
		{path: "../secret", code: perm},
		{path: "..", code: perm},
		{path: secret, code: perm},
		{path: "etc/passwd", code: noEnt},
		{path: "/etc/passwd", code: perm},
		{path: "in/secret", create: true, code: roFS},
		{path: "in/new", create: true, code: roFS},
		{path: "in/folder/new", create: true, code: roFS},
		{path: "new", create: true, code: roFS},
		{path: "out", create: true, code: isDir},
		{path: "out/new", create: true, code: ok},
		{path: "out/none/new", create: true, code: noEnt},
		{path: "out/../in/secret", create: true, code: roFS},
	} {
		if c.link && !links {
			continue
		}
		task, _, _ := wasmTask(t, wat.Open(c.path, c.create))
		task.Inputs = []Mount{{Name: "secret", Path: secret}, {Name: "a/b/c", Path: secret}, {Name: "folder", Path: folder}}
		e := finish(t, p, task)
		if e.Reason != "" || e.Code != c.code {
			t.Errorf("open %q (create %v): %d, want %d; %s", c.path, c.create, e.Code, c.code, e.Reason)
		}
		_, err := os.Stat(filepath.Join(task.Dir, "out", "new"))
		if made := err == nil; made != (c.path == "out/new") {
			t.Errorf("open %q: made %v", c.path, made)
		}
	}
	for _, f := range []string{secret, filepath.Join(folder, "file")} {
		if raw, err := os.ReadFile(f); string(raw) != "x" || err != nil {
			t.Errorf("an input was changed: %q, %v", raw, err)
		}
	}
	task, _, _ := wasmTask(t, wat.Symlink(secret, "out/link"))
	if e := finish(t, p, task); e.Code == 0 {
		t.Error("a link was made")
	}
	_, _, _ = exist, inval, notDir
}

func TestModuleFillsAFile(t *testing.T) {
	p := openPool(t, nil)
	task, _, _ := wasmTask(t, wat.Fill("out/full"))
	e := finish(t, p, task)
	if !strings.Contains(e.Reason, "wrote more than its limit") || e.Fault {
		t.Errorf("%+v", e)
	}
	info, err := os.Stat(filepath.Join(task.Dir, "out", "full"))
	if err != nil || info.Size() > task.Limits.Output || info.Size() < task.Limits.Output/2 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestPipe: a megabyte goes in as a range of a file and comes out as it was.
func TestPipe(t *testing.T) {
	p := openPool(t, nil)
	raw := make([]byte, 1<<20+12345)
	for i := range raw {
		raw[i] = byte(i * 7 >> 3)
	}
	path := module(t, raw)
	task, out, _ := wasmTask(t, wat.Cat())
	task.Limits.Output = 2 << 20
	for _, s := range []Stdin{{Path: path, Size: -1}, {Path: path, First: 1000, Size: 1 << 20}, {Text: raw[:4000]}, {}} {
		out.Reset()
		task.Stdin = s
		want := s.Text
		switch {
		case s.Size < 0:
			want = raw
		case s.Path != "":
			want = raw[s.First:][:s.Size]
		}
		e := finish(t, p, task)
		if e.Code != 0 || e.Reason != "" || !bytes.Equal(out.Bytes(), want) || e.Usage.Read != int64(len(want)) {
			t.Errorf("%d bytes of %d; %+v", out.Len(), len(want), e)
		}
	}
}

// TestResponsive: while as many hostile guests run as there are children, another one is served, and so is Prepare.
func TestResponsive(t *testing.T) {
	p := openPool(t, nil)
	var attempts []*Attempt
	for _, raw := range [][]byte{wat.Loop(), wat.Chatter(), wat.Loop()} {
		task, _, _ := wasmTask(t, raw)
		a, _ := running(t, p, task)
		attempts = append(attempts, a)
	}
	task, out, _ := wasmTask(t, wat.Hello())
	if err := p.Prepare(t.Context(), job.Wasm, task.Module, task.ModuleID); err != nil {
		t.Error(err)
	}
	if e := finish(t, p, task); e.Reason != "" || out.String() != "hello\n" {
		t.Errorf("%+v", e)
	}
	if err := p.Prepare(t.Context(), job.Wasm, module(t, []byte("nonsense")), "nonsense"); err == nil || !strings.Contains(err.Error(), "no WebAssembly module") {
		t.Error(err)
	}
	for _, a := range attempts {
		a.Kill()
		if e := await(t, a); e.Reason != "it was killed" {
			t.Errorf("%+v", e)
		}
	}
}

func TestTasksAreChecked(t *testing.T) {
	p := openPool(t, nil)
	for name, change := range map[string]func(*Task){
		"kind":       func(t *Task) { t.Kind = 9 },
		"module":     func(t *Task) { t.Module = "" },
		"folder":     func(t *Task) { t.Dir = "" },
		"limits":     func(t *Task) { t.Limits.Output = 0 },
		"input":      func(t *Task) { t.Inputs = []Mount{{Name: "../x", Path: "/"}} },
		"input path": func(t *Task) { t.Inputs = []Mount{{Name: "x"}} },
		"twice":      func(t *Task) { t.Inputs = []Mount{{Name: "x", Path: "/"}, {Name: "x", Path: "/"}} },
		"environ":    func(t *Task) { t.Env = []string{"=x"} },
		"argument":   func(t *Task) { t.Args = []string{"a\x00b"} },
		"stdin":      func(t *Task) { t.Stdin.First = -1 },
		"proc":       func(t *Task) { t.Kind, t.Path = job.Proc, "true" },
	} {
		task, _, _ := wasmTask(t, wat.Hello())
		change(&task)
		if _, err := p.Start(task); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// goProgram is a program for WASI as people write it.
const goProgram = `package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
)

func main() {
	in, err := io.ReadAll(os.Stdin)
	fmt.Printf("%s %v %s\n", in, err, os.Getenv("SHOAL_TASK"))
	var names []string
	err = filepath.WalkDir("/in", func(p string, d os.DirEntry, err error) error { names = append(names, p); return err })
	sort.Strings(names)
	fmt.Println(os.Args[1:], names, err)
	err = os.MkdirAll("/out/deep/er", 0o755)
	fmt.Println(err)
	f, err := os.OpenFile("/out/deep/er/file", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	fmt.Fprint(f, "one ")
	fmt.Fprint(f, "two")
	fmt.Println(err, f.Close(), os.Rename("/out/deep/er/file", "/out/moved"), os.RemoveAll("/out/deep"))
	raw, err := os.ReadFile("/in/a/b")
	fmt.Println(string(raw), err)
	_, err = os.Stat("/etc/passwd")
	fmt.Println(os.IsNotExist(err))
	block := make([][]byte, 0)
	if len(os.Args) > 2 {
		for {
			block = append(block, make([]byte, 1<<20))
		}
	}
	fmt.Fprintln(os.Stderr, "done", len(block))
	os.Exit(4)
}
`

func TestGoProgram(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command to compile a program with")
	}
	if testing.Short() {
		t.Skip("compiling Go's library for WASI takes a while")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "main.wasm")
	if err := os.WriteFile(source, []byte(goProgram), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", program, source)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if said, err := build.CombinedOutput(); err != nil {
		t.Skipf("the program does not compile here: %v: %s", err, said)
	}
	p := openPool(t, nil)
	began := time.Now()
	if err := p.Prepare(t.Context(), job.Wasm, program, "program"); err != nil {
		t.Fatal(err)
	}
	t.Log("compiled in", time.Since(began))
	input := module(t, []byte("input"))
	task, out, errs := wasmTask(t, nil)
	task.Module, task.ModuleID = program, "program"
	task.Args, task.Env = []string{"x"}, []string{"SHOAL_TASK=7"}
	task.Inputs = []Mount{{Name: "a/b", Path: input}, {Name: "c", Path: input}}
	task.Stdin = Stdin{Text: []byte("standard")}
	e := finish(t, p, task)
	want := "standard <nil> 7\n[x] [/in /in/a /in/a/b /in/c] <nil>\n<nil>\n<nil> <nil> <nil> <nil>\ninput <nil>\ntrue\n"
	if e.Code != 4 || e.Reason != "" || out.String() != want || errs.String() != "done 0\n" {
		t.Errorf("%+v\n%s\n%s", e, out, errs)
	}
	if raw, err := os.ReadFile(filepath.Join(task.Dir, "out", "moved")); string(raw) != "one two" {
		t.Errorf("%q, %v", raw, err)
	}
	if entries, _ := os.ReadDir(filepath.Join(task.Dir, "out")); len(entries) != 1 {
		t.Error(entries)
	}
	began = time.Now()
	task.Args, task.Dir = []string{"x", "y"}, filepath.Join(dir, "second")
	if e := finish(t, p, task); !strings.Contains(e.Reason, "more memory than its limit") || e.Fault {
		t.Errorf("%+v", e)
	}
	t.Log("ran out of memory in", time.Since(began))
	again := openPool(t, func(c *Config) { c.Dir = p.cfg.Dir })
	began = time.Now()
	if err := again.Prepare(t.Context(), job.Wasm, program, "program"); err != nil {
		t.Fatal(err)
	}
	t.Log("taken from disk, with a new child, in", time.Since(began))
}
