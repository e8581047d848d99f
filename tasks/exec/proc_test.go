package exec

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/tasks/job"
)

func openProcPool(t testing.TB) *Pool {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil || runtime.GOOS == "windows" {
		t.Skip("there is no sh here")
	}
	return openPool(t, func(c *Config) { c.AllowExec = true })
}

// shell is a task that runs a script.
func shell(t testing.TB, script string, args ...string) (Task, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	var out, errs bytes.Buffer
	return Task{
		Kind: job.Proc, Path: "sh", Args: append([]string{"-c", script, "sh"}, args...), Dir: filepath.Join(t.TempDir(), "attempt"),
		Limits: job.Resources{Cores: 1, Memory: 512 << 20, Wall: waitMax, Output: 1 << 20},
		Stdout: &out, Stderr: &errs,
	}, &out, &errs
}

// needs skips a test of what this system cannot enforce, by the word that says so.
func needs(t *testing.T, p *Pool, word string) {
	t.Helper()
	for _, g := range p.Guards() {
		if strings.Contains(g, word) {
			t.Skip("not enforced here: " + g)
		}
	}
}

// marked lists the processes that have a word among their arguments.
func marked(t testing.TB, word string) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if raw, err := os.ReadFile(p); err == nil && bytes.Contains(raw, []byte(word)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// alive counts the processes that have a word among their arguments.
func alive(t testing.TB, word string) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	return len(marked(t, word))
}

func TestCommand(t *testing.T) {
	p := openProcPool(t)
	t.Log("not enforced here:", strings.Join(p.Guards(), "; "))
	input := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(input, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	task, out, errs := shell(t, `cat; echo " $1 $X"; cat in/a/b; cat "$SHOAL_IN/a/b" > "$SHOAL_OUT/copy"; read -r comm < /proc/self/comm; echo $comm >&2; exit 3`, "arg")
	task.Env = []string{"X=y z"}
	task.Inputs = []Mount{{Name: "a/b", Path: input, Size: 10}}
	task.Stdin = Stdin{Path: input, First: 2, Size: 3}
	e := finish(t, p, task)
	if e.Code != 3 || e.Reason != "" || out.String() != "234 arg y z\n0123456789" || errs.String() != "sh\n" {
		t.Fatalf("%+v %q %q", e, out, errs)
	}
	if raw, err := os.ReadFile(filepath.Join(task.Dir, "out", "copy")); string(raw) != "0123456789" {
		t.Errorf("%q, %v", raw, err)
	}
	if e.Usage.Wall <= 0 || e.Usage.CPU <= 0 || e.Usage.Memory <= 0 || e.Usage.Written != 25 || e.Usage.Read != 3 {
		t.Errorf("usage %+v", e.Usage)
	}
	for name, c := range map[string]struct {
		stdin Stdin
		want  string
	}{
		"nothing":  {Stdin{}, ""},
		"text":     {Stdin{Text: []byte("text")}, "text"},
		"a file":   {Stdin{Path: input, Size: -1}, "0123456789"},
		"its end":  {Stdin{Path: input, First: 7, Size: -1}, "789"},
		"its part": {Stdin{Path: input, First: 0, Size: 4}, "0123"},
	} {
		task, out, _ := shell(t, "cat")
		task.Stdin = c.stdin
		if e := finish(t, p, task); e.Code != 0 || out.String() != c.want {
			t.Errorf("%s: %+v, %q", name, e, out)
		}
	}
}

func TestCommandRefused(t *testing.T) {
	p := openProcPool(t)
	task, _, _ := shell(t, "true")
	task.Path = "no-such-command-here"
	if e := finish(t, p, task); e.Code != 127 || !strings.Contains(e.Reason, "no command") || e.Fault {
		t.Errorf("%+v", e)
	}
	if err := p.Prepare(t.Context(), job.Proc, task.Path, ""); err == nil || !strings.Contains(err.Error(), "no command") {
		t.Error(err)
	}
	none := openPool(t, nil)
	if _, err := none.Start(task); err == nil || !strings.Contains(err.Error(), "does not allow") {
		t.Error(err)
	}
	if err := none.Prepare(t.Context(), job.Proc, "sh", ""); err == nil {
		t.Error("allowed")
	}
}

func TestHostileCommands(t *testing.T) {
	p := openProcPool(t)
	mark := fmt.Sprintf("66%07d", os.Getpid())
	for name, c := range map[string]struct {
		script string
		wall   time.Duration
		reason string
	}{
		"ignores signals":  {`trap '' TERM INT HUP; while :; do sleep 0.01; done`, time.Second, "longer than its limit"},
		"forks":            {`i=0; while [ $i -lt 2000 ]; do sleep $1 & i=$((i+1)); done; wait`, waitMax, "processes"},
		"leaves others":    {`i=0; while [ $i -lt 600 ]; do sleep $1 & i=$((i+1)); done; exit 2`, waitMax, "processes"},
		"fills its folder": {`i=0; while [ $i -lt 2000 ]; do head -c 500000 /dev/zero > f$i; i=$((i+1)); done; sleep $1`, waitMax, "wrote more than"},
		"fills a file":     {`head -c 100000000 /dev/zero > out/f; sleep 0`, waitMax, "wrote more than"},
		"shouts":           {`while :; do echo shoal shoal shoal shoal shoal; done`, waitMax, "wrote more than"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(c.reason, "processes") {
				needs(t, p, "number of")
			}
			task, out, _ := shell(t, c.script, mark)
			task.Limits.Wall = c.wall
			e := finish(t, p, task)
			if !strings.Contains(e.Reason, c.reason) || e.Fault || e.Code != CodeKilled {
				t.Errorf("%+v", e)
			}
			if int64(out.Len()) > task.Limits.Output {
				t.Errorf("%d bytes came through", out.Len())
			}
			if n := alive(t, mark); n != 0 {
				t.Errorf("%d processes are left", n)
			}
		})
	}
	task, out, _ := shell(t, "echo still here")
	if e := finish(t, p, task); e.Code != 0 || out.String() != "still here\n" {
		t.Errorf("afterwards: %+v, %q", e, out)
	}
}

// TestDaemon: nothing of a command is left when its first process has ended, however it was started.
func TestDaemon(t *testing.T) {
	p := openProcPool(t)
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("there is no setsid here")
	}
	mark := fmt.Sprintf("77%07d", os.Getpid())
	task, out, _ := shell(t, `(setsid sh -c "sleep $1 & sleep $1 &" >/dev/null 2>&1 </dev/null &); setsid sleep $1 & (sleep $1 &) ; echo gone`, mark)
	if e := finish(t, p, task); e.Code != 0 || out.String() != "gone\n" {
		t.Errorf("%+v %q", e, out)
	}
	if n := alive(t, mark); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

func TestCommandWritesOnlyItsFolder(t *testing.T) {
	p := openProcPool(t)
	needs(t, p, "Landlock")
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `cat "$1/secret"; echo x > "$1/new"; echo x >> "$1/secret"; rm -f "$1/secret"; chmod 777 "$1/secret"; mkdir "$1/d"; mv "$1/secret" "$1/s2"
		touch "$1/secret"; ln "$1/secret" out/hard; echo x > in/s; ln -s "$1/new" out/soft; echo x > out/soft; cat ../../*/secret; echo x > ../other; kill -9 $PPID; kill -9 1`
	task, out, _ := shell(t, script, dir)
	input := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(input, []byte("input"), 0o644); err != nil {
		t.Fatal(err)
	}
	task.Inputs = []Mount{{Name: "s", Path: input}}
	e := finish(t, p, task)
	if e.Reason != "" || out.String() != "" {
		t.Errorf("%+v, %q", e, out)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	info, err := os.Stat(secret)
	modes := !strings.Contains(strings.Join(p.Guards(), ";"), "change modes")
	if raw, _ := os.ReadFile(secret); string(raw) != "secret" || err != nil || modes && info.Mode().Perm() != 0o644 {
		t.Errorf("the file was changed: %q, %v, %v", raw, info, err)
	}
	if raw, _ := os.ReadFile(input); string(raw) != "input" {
		t.Errorf("an input was changed: %q", raw)
	}
}

func TestCommandHasNoNetwork(t *testing.T) {
	p := openProcPool(t)
	needs(t, p, "network")
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("there is no bash here to dial with")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	task, out, errs := shell(t, "")
	task.Path, task.Args = "bash", []string{"-c", fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d && echo connected", l.Addr().(*net.TCPAddr).Port)}
	if e := finish(t, p, task); e.Code == 0 || out.Len() != 0 || errs.Len() == 0 {
		t.Errorf("%+v %q %q", e, out, errs)
	}
}
