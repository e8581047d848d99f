package exec

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/tasks/exec/pb"
	"github.com/shoal-os/shoal/tasks/exec/wasm/wat"
)

// stands reports whether a process that was stopped can do nothing. One that waits for its vfork'ed child, which was stopped
// before it became another program, is D for as long.
func stands(pid int) bool {
	s := stateOf(pid)
	return s == "T" || s == "D"
}

// stateOf is the letter that Linux has for what a process does: R, S, D, T for stopped, Z; "" if there is none of that id.
func stateOf(pid int) string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	return f[0]
}

// TestGuestsAreNice: whatever a guest does, its peer and its owner come first.
func TestGuestsAreNice(t *testing.T) {
	p := openPool(t, nil)
	hello, _, _ := wasmTask(t, wat.ChatterThenLoop(1))
	up := make(chan struct{})
	var once sync.Once
	hello.Stdout = writer(func(b []byte) (int, error) { once.Do(func() { close(up) }); return len(b), nil })
	_, pid := running(t, p, hello)
	<-up
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	for _, dir := range threads {
		tid, _ := strconv.Atoi(filepath.Base(dir))
		prio, err := syscall.Getpriority(syscall.PRIO_PROCESS, tid)
		if nice := 20 - prio; err != nil || nice != wasmNice { // the system call counts from 20 down
			t.Errorf("a thread of a child is at %d, %v", nice, err)
		}
	}
}

// TestCommandsSessionIsNice: where sessions are scheduled as groups, a command's is lowered as a whole; its processes' values count for
// nothing outside.
func TestCommandsSessionIsNice(t *testing.T) {
	if _, err := os.Stat("/proc/self/autogroup"); err != nil {
		t.Skip(err)
	}
	p := openProcPool(t)
	needs(t, p, "namespaces")
	task, out, errs := shell(t, `until grep -q "nice 10$" /proc/self/autogroup; do sleep 0.02; done; cat /proc/self/autogroup`)
	a, err := p.Start(task)
	if err != nil {
		t.Fatal(err)
	}
	if e := await(t, a); e.Code != 0 || !strings.HasSuffix(out.String(), fmt.Sprintf("nice %d\n", procNice)) {
		t.Errorf("%+v %q %q", e, out, errs)
	}
}

func TestFreeze(t *testing.T) {
	p := openPool(t, nil)
	task, _, _ := wasmTask(t, wat.Loop())
	task.Limits.Wall = waitMax
	a, pid := running(t, p, task)
	for range 3 {
		a.Freeze()
		eventually(t, "frozen", func() bool { return stateOf(pid) == "T" })
		a.Freeze()
		a.Thaw()
		eventually(t, "thawed", func() bool { return stateOf(pid) != "T" })
	}
	a.Freeze()
	a.Kill()
	if e := await(t, a); e.Reason != "it was killed" || e.Code != CodeKilled || e.Fault {
		t.Errorf("%+v", e)
	}
	a.Kill()
	a.Thaw()
	a.Freeze()
	a.Until(1)
}

// TestUntil: the child stops when its time comes, and goes on when it gets more.
func TestUntil(t *testing.T) {
	p := openPool(t, nil)
	task, _, _ := wasmTask(t, wat.Loop())
	task.Until = pool.BootTime() + 300*time.Millisecond
	a, pid := running(t, p, task)
	eventually(t, "stopped", func() bool { return stateOf(pid) == "T" })
	if now := pool.BootTime(); now < task.Until {
		t.Errorf("it stopped %v early", task.Until-now)
	}
	a.Until(pool.BootTime() + time.Hour)
	eventually(t, "goes on", func() bool { return stateOf(pid) != "T" })
	a.Freeze()
	a.Until(pool.BootTime() + 2*time.Hour)
	eventually(t, "stays frozen", func() bool { return stateOf(pid) == "T" })
	a.Thaw()
	eventually(t, "goes on again", func() bool { return stateOf(pid) != "T" })
	// What its owner does not know of, the child does all the same.
	if err := a.runner.send(&pb.Order{Order: &pb.Order_Until{Until: &pb.Until{Id: a.id, UntilNs: int64(pool.BootTime())}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child stops by itself", func() bool { return stateOf(pid) == "T" })
	a.Kill()
	await(t, a)
}

// TestHearsWhileItRuns: a guest that made garbage in the child and then never yields does not keep the child from hearing that
// it may run longer, nor from stopping when it may not.
func TestHearsWhileItRuns(t *testing.T) {
	p := openPool(t, nil)
	task, _, _ := wasmTask(t, wat.ChatterThenLoop(300_000))
	said := make(chan struct{})
	var once sync.Once
	task.Stdout = writer(func(b []byte) (int, error) { once.Do(func() { close(said) }); return len(b), nil })
	a, pid := running(t, p, task)
	select {
	case <-said:
	case <-time.After(waitMax):
		t.Fatal("it says nothing")
	}
	for i := range 50 {
		soon := pool.BootTime() + 100*time.Millisecond
		a.Until(soon)
		a.Until(soon + time.Hour)
		if i%10 == 0 {
			eventually(t, "the time passes", func() bool { return pool.BootTime() > soon+2*thawLate })
			eventually(t, "it still runs", func() bool { return stateOf(pid) != "T" })
		}
	}
	_ = a.runner.send(&pb.Order{Order: &pb.Order_Until{Until: &pb.Until{Id: a.id, UntilNs: int64(pool.BootTime())}}})
	eventually(t, "it stops", func() bool { return stateOf(pid) == "T" })
	a.Kill()
	await(t, a)
}

func TestProcFreezeUntilKill(t *testing.T) {
	p := openProcPool(t)
	mark := fmt.Sprintf("88%07d", os.Getpid())
	task, _, _ := shell(t, `(setsid sh -c "while :; do sleep 0.0$1; done") & while :; do sleep 0.0$1; done`, mark)
	a, err := p.Start(task)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "both loops run", func() bool { return len(marked(t, mark)) >= 3 })
	still := func() bool {
		pids := marked(t, mark)
		for _, pid := range pids {
			if !stands(pid) {
				return false
			}
		}
		return len(pids) > 0
	}
	a.Freeze()
	eventually(t, "all stand still", still)
	a.Until(pool.BootTime() + time.Hour)
	eventually(t, "more time does not thaw what its owner froze", still)
	a.Thaw()
	eventually(t, "they go on", func() bool { return !still() })
	a.Until(pool.BootTime() + time.Millisecond)
	eventually(t, "all stand still at the end of their time", still)
	a.Until(pool.BootTime() + time.Hour)
	eventually(t, "they go on with more", func() bool { return !still() })
	a.Freeze()
	a.Kill()
	if e := await(t, a); e.Reason != "it was killed" || e.Fault {
		t.Errorf("%+v", e)
	}
	if n := alive(t, mark); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

// startPeer starts such a peer and returns its children: one of wasm that has two seconds, one that has as long as it likes,
// and one of proc.
func startPeer(t *testing.T) (*exec.Cmd, []int) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), role+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var pids []int
	for lines := bufio.NewScanner(out); len(pids) < 3 && lines.Scan(); {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(lines.Text())
		}
		pids = append(pids, pid)
	}
	if len(pids) != 3 {
		t.Fatal("the peer did not start")
	}
	return cmd, pids
}

// TestPeerKilled: a peer that is killed leaves no process behind.
func TestPeerKilled(t *testing.T) {
	cmd, pids := startPeer(t)
	below := descendants(pids)
	if len(below) < 4 {
		t.Fatalf("the command's processes are not there: %v", below)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range below {
		eventually(t, "gone", func() bool { s := stateOf(pid); return s == "" || s == "Z" })
	}
}

// TestPeerStopped: guests of a peer that is stopped stop at their time, those of wasm and those of proc, and only those.
func TestPeerStopped(t *testing.T) {
	cmd, pids := startPeer(t)
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the module stops", func() bool { return stateOf(pids[0]) == "T" })
	eventually(t, "the command stops", func() bool {
		all := descendants(pids[2:])
		for _, pid := range all[1:] { // the child itself goes on: it keeps the time
			if !stands(pid) {
				return false
			}
		}
		return len(all) > 1
	})
	if s := stateOf(pids[1]); s == "T" {
		t.Error("one that has time was stopped")
	}
}

// descendants lists processes and all that they started.
func descendants(pids []int) []int {
	all := append([]int(nil), pids...)
	for i := 0; i < len(all); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, f := range tasks {
			raw, _ := os.ReadFile(f)
			for _, w := range strings.Fields(string(raw)) {
				if pid, err := strconv.Atoi(w); err == nil {
					all = append(all, pid)
				}
			}
		}
	}
	return all
}

// plain is set when the test binary runs where no namespaces can be made.
const plain = "SHOAL_EXEC_TEST_PLAIN"

// forbidNamespaces makes this process, which is in a user namespace of its own, unable to make another one.
func forbidNamespaces() {
	if os.Getenv(plain) == "" {
		return
	}
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		fmt.Println("SKIP", err)
		os.Exit(0)
	}
}

// TestPlain runs the tests of native commands where the system gives them no namespaces, as many do.
func TestPlain(t *testing.T) {
	if os.Getenv(plain) != "" {
		p := openProcPool(t)
		if g := p.Guards(); len(g) == 0 || !strings.Contains(g[0], "no namespaces") {
			t.Error(g)
		}
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.v", "-test.run", "^(TestPlain|TestCommand.*|TestHostileCommands|TestDaemon|TestProcFreezeUntilKill|TestPeerKilled)$")
	cmd.Env = append(os.Environ(), plain+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	said, err := cmd.CombinedOutput()
	switch {
	case len(said) == 0 || bytes.HasPrefix(said, []byte("SKIP")):
		t.Skipf("there are no user namespaces here to take away: %v %s", err, said)
	case err != nil:
		t.Errorf("%v\n%s", err, said)
	case !bytes.Contains(said, []byte("--- PASS: TestPlain")):
		t.Errorf("it did not run:\n%s", said)
	}
	t.Logf("%s", said)
}

// TestFrozenAtItsEnd: a freeze that comes when the guest has ended, but before the peer has read so, finds the child idle; it
// must not stand still for the next attempt.
func TestFrozenAtItsEnd(t *testing.T) {
	p := openPool(t, nil)
	loop, _, _ := wasmTask(t, wat.Loop())
	a, pid := running(t, p, loop)
	a.Freeze()
	eventually(t, "the child stands still", func() bool { return stateOf(pid) == "T" })
	a.detach() // what the reader does first when it reads the end
	a.Thaw()
	eventually(t, "the child goes on", func() bool { return stateOf(pid) != "T" })
}
