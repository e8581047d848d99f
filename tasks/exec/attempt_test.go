package exec

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/tasks/exec/wasm/wat"
	"github.com/shoal-os/shoal/tasks/job"
)

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(waitMax)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("not in time: " + what)
		}
	}
}

// running starts a task and waits for its child.
func running(t testing.TB, p *Pool, task Task) (*Attempt, int) {
	t.Helper()
	a, err := p.Start(task)
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	eventually(t, "the attempt has a child", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.runner != nil {
			pid = a.runner.cmd.Process.Pid
		}
		return pid != 0
	})
	return a, pid
}

// TestChildGoneBefore: a child that has died and was waited for just before it is given a task cannot tell of it any more. The
// attempt must end all the same, or whoever waits for it, the peer's own end too, waits for ever.
func TestChildGoneBefore(t *testing.T) {
	p := openPool(t, nil)
	task, _, _ := wasmTask(t, wat.Loop())
	r, err := p.take(job.Wasm)
	if err != nil {
		t.Fatal(err)
	}
	r.leash.kill(r.cmd) // somebody else does
	p.wait.Wait()       // its reader is through
	a := newAttempt(p, task)
	r.run(a)
	if e := await(t, a); !e.Fault || e.Reason == "" {
		t.Errorf("%+v", e)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestCloseAndFault(t *testing.T) {
	p := openPool(t, nil)
	loop, _, _ := wasmTask(t, wat.Loop())
	a, _ := running(t, p, loop)
	b, pid := running(t, p, loop)
	child, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Kill(); err != nil { // somebody else does
		t.Fatal(err)
	}
	if e := await(t, b); !e.Fault || e.Reason == "" {
		t.Errorf("%+v", e)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if e := await(t, a); !e.Fault {
		t.Errorf("%+v", e)
	}
	if _, err := p.Start(loop); err == nil {
		t.Error("a closed pool takes tasks")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestMany: many tasks over few children, of which some go wrong, some are killed and some frozen meanwhile.
// A freeze that comes when the guest has ended, but the peer has not yet heard of it, must not stop the child for the next.
func TestMany(t *testing.T) {
	p := openPool(t, nil)
	hello, _, _ := wasmTask(t, wat.Hello())
	trap, _, _ := wasmTask(t, wat.Trap())
	loop, _, _ := wasmTask(t, wat.Loop())
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for i := range 60 {
				task, want := hello, ""
				switch {
				case i%10 == 3:
					task, want = trap, "trapped"
				case i%20 == 7:
					task, want = loop, "it was killed"
				}
				var out bytes.Buffer
				task.Stdout, task.Stderr = &out, new(bytes.Buffer)
				a, err := p.Start(task)
				if err != nil {
					t.Error(err)
					return
				}
				if i%5 == 0 {
					a.Freeze()
					a.Thaw()
				}
				if i%20 == 7 {
					a.Kill()
				}
				e := await(t, a)
				if !strings.Contains(e.Reason, want) || e.Fault || want == "" && (out.String() != "hello\n" || e.Reason != "") {
					t.Errorf("%d: %+v %q", i, e, out.String())
				}
			}
		})
	}
	wait.Wait()
}

// role is what the test binary does when it is started as a peer that is to die.
const role = "SHOAL_EXEC_TEST_ROLE"

// peer runs two endless guests, says the ids of their children, and waits.
func peer(dir string) error {
	p, err := Open(Config{Dir: dir, AllowExec: true})
	if err != nil {
		return err
	}
	module := filepath.Join(dir, "module")
	if err := os.WriteFile(module, wat.Loop(), 0o600); err != nil {
		return err
	}
	limits := job.Resources{Memory: 512 << 20, Wall: time.Hour, Output: 1 << 20}
	until := pool.BootTime() + 2*time.Second
	for _, task := range []Task{
		{Kind: job.Wasm, Module: module, ModuleID: "m", Dir: filepath.Join(dir, "a"), Limits: limits, Until: until},
		{Kind: job.Wasm, Module: module, ModuleID: "m", Dir: filepath.Join(dir, "b"), Limits: limits},
		{Kind: job.Proc, Path: "sh", Args: []string{"-c", "echo up; sleep 9999 & while :; do :; done"}, Dir: filepath.Join(dir, "c"), Limits: limits, Until: until},
	} {
		up := make(chan struct{})
		var once sync.Once
		task.Stdout = writer(func(b []byte) (int, error) { once.Do(func() { close(up) }); return len(b), nil })
		a, err := p.Start(task)
		if err != nil {
			return err
		}
		pid := 0
		for pid == 0 {
			a.mu.Lock()
			if a.runner != nil {
				pid = a.runner.cmd.Process.Pid
			}
			a.mu.Unlock()
			runtime.Gosched()
		}
		if task.Kind == job.Proc {
			<-up
		}
		fmt.Println(pid)
	}
	select {}
}
