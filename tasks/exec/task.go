package exec

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/shoal-os/shoal/tasks/exec/pb"
	"github.com/shoal-os/shoal/tasks/job"
)

// inputsMax bounds what is mounted for one task. A folder of many files is one input.
const inputsMax = 4096

// Task is one attempt as a runner needs it. All paths are local and absolute.
type Task struct {
	Kind job.Kind

	Module   string // of Wasm: where the module's bytes are
	ModuleID string // of Wasm: their name; equal names mean equal bytes
	Path     string // of Proc: the command, as a path or to be found in PATH

	Args   []string // without the program's own name
	Env    []string // NAME=value; nothing else is passed on of the peer's environment but, of Proc, PATH and the language
	Inputs []Mount  // read-only, seen as /in/NAME (Wasm) or in/NAME below the folder it runs in, which is $SHOAL_IN/NAME (Proc)
	Stdin  Stdin

	// Dir is a private folder of this attempt, the caller's to remove. It should not exist yet; it is made when the guest first
	// writes a file (Wasm) or at once (Proc), and may be gone after the end if the guest left nothing. What it left is in
	// Dir/out, if that is there. Whoever collects it must follow no symbolic link. All attempts' folders should be in one
	// folder, which holds nothing else that a command may not write, should Landlock be missing.
	Dir string

	Limits job.Resources // filled in (job.Spec.Limits)

	// Until is the reading of the boot-time clock (dht/pool.BootTime) at which the guest stops running unless a later one was
	// told; 0 is never. It is frozen then, on Windows killed.
	Until time.Duration

	// What the guest writes goes to Stdout and Stderr as it comes, from one goroutine; nil drops it. A writer that blocks
	// blocks the guest. Nothing is written after Done.
	Stdout, Stderr io.Writer
}

// Mount is an input: a file, or a folder with all that is below it.
type Mount struct {
	Name string // a path without "..", "/" between its elements
	Path string
	Size int64 // bytes
}

// Stdin is what the guest reads from its standard input: Text, or Size bytes from First on of the file at Path, to its end if
// Size is negative. The zero value is nothing.
type Stdin struct {
	Text        []byte
	Path        string
	First, Size int64
}

// Exit codes of attempts that ended otherwise than by themselves, as a shell has them: 128 and the signal's number.
const (
	CodeTrap   = 134 // SIGABRT: a WebAssembly trap
	CodeKilled = 137 // SIGKILL
)

// Exit says how an attempt ended.
type Exit struct {
	Code   int
	Reason string // not "": the attempt failed for this reason (limit reached, trap, killed), in words
	Fault  bool   // the runner broke or was taken away; it does not count against the task
	Usage  job.Usage
}

// check reports what is wrong with a task before a child is bothered with it.
func (t *Task) check(allowExec bool) error {
	switch {
	case t.Kind == job.Wasm && (t.Module == "" || t.ModuleID == ""):
		return errors.New("no module")
	case t.Kind == job.Proc && t.Path == "":
		return errors.New("no command")
	case t.Kind == job.Proc && !allowExec:
		return errNoExec
	case t.Kind != job.Wasm && t.Kind != job.Proc:
		return fmt.Errorf("kind %d of program", t.Kind)
	case t.Dir == "":
		return errors.New("no folder")
	case t.Limits.Memory <= 0 || t.Limits.Wall <= 0 || t.Limits.Output <= 0:
		return errors.New("limits are missing")
	case len(t.Inputs) > inputsMax:
		return fmt.Errorf("%d inputs; at most %d are possible", len(t.Inputs), inputsMax)
	case t.Stdin.First < 0:
		return errors.New("standard input begins before the file does")
	}
	seen := make(map[string]bool, len(t.Inputs))
	for _, m := range t.Inputs {
		if !local(m.Name) || m.Path == "" || seen[m.Name] {
			return fmt.Errorf("input %.80q", m.Name)
		}
		seen[m.Name] = true
	}
	for _, e := range t.Env {
		if strings.IndexByte(e, '=') < 1 || strings.IndexByte(e, 0) >= 0 {
			return fmt.Errorf("environment: %.40q is not NAME=value", e)
		}
	}
	for _, a := range t.Args {
		if strings.IndexByte(a, 0) >= 0 {
			return fmt.Errorf("the argument %.40q has a zero byte", a)
		}
	}
	return nil
}

// local reports whether a slash-separated name stays below the folder it is put in, on every system.
func local(name string) bool {
	return name != "" && name != "." && !path.IsAbs(name) && path.Clean(name) == name &&
		name != ".." && !strings.HasPrefix(name, "../") && !strings.ContainsAny(name, "\\\x00:")
}

// message is what the child gets; the id is added when one is chosen.
func (t *Task) message() *pb.Task {
	m := &pb.Task{
		Module: t.Module, ModuleId: t.ModuleID, Path: t.Path, Args: t.Args, Env: t.Env, Dir: t.Dir,
		Memory: t.Limits.Memory, Output: t.Limits.Output, Cores: int64(t.Limits.Cores), UntilNs: int64(t.Until),
	}
	for _, in := range t.Inputs {
		m.Inputs = append(m.Inputs, &pb.Mount{Name: in.Name, Path: in.Path})
	}
	if s := &t.Stdin; len(s.Text) > 0 || s.Path != "" {
		m.Stdin = &pb.Stdin{Text: s.Text, Path: s.Path, First: s.First, Size: s.Size}
	}
	return m
}
