package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	// ownKey marks flags that say what one job is. As standing settings they would make no sense, or mean something else: name is
	// also what a peer is called.
	ownKey = "own"
	// stdinInline is how many bytes of standard input go with the request itself; more is stored first.
	stdinInline = 4 << 10
	wasmSuffix  = ".wasm"
	// localPrefix tells a path of this machine that begins with / from one in the pool.
	localPrefix = "file:"
)

const placesHelp = "A path that begins with / is the pool's; one of this machine is written relative, or as file:/home/me/x."

// jobFlags are those of run and map.
type jobFlags struct {
	name             string
	needs, env       []string
	inputs           []string
	cores            int
	memory, output   bytesFlag
	time, keep       time.Duration
	retries          int
	priority         int
	exclusive, fresh bool
}

func (j *jobFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&j.inputs, "in", nil, "a file or folder that each task finds as /in/NAME: PATH[=NAME]; may be repeated")
	f.StringArrayVarP(&j.env, "env", "e", nil, "a variable for the program: NAME=VALUE, or NAME to pass on this shell's; may be repeated")
	f.IntVar(&j.cores, "cores", 0, "cores that a task needs (default 1)")
	f.Var(&j.memory, "mem", "memory that a task may use, as 2GiB (default 512MiB)")
	f.DurationVar(&j.time, "time", 0, "how long a task may run, as 10m (default 24h)")
	f.Var(&j.output, "max-output", "how much a task may write, as 100MiB (default 1GiB)")
	f.IntVar(&j.retries, "retries", -1, "how often a task that failed is tried again")
	f.BoolVar(&j.exclusive, "exclusive", false, "never run two attempts at a task at a time, even if a peer has vanished with one")
	f.StringSliceVar(&j.needs, "needs", nil, "labels that a peer must have, as arch=amd64 or gpu=nvidia; may be repeated")
	f.BoolVar(&j.fresh, "fresh", false, "run it even if the pool has a stored result of the same work")
	f.StringVar(&j.name, "name", "", "what the job is called (default the program's name)")
	f.IntVar(&j.priority, "priority", 0, "from -8 to 8; greater goes first")
	f.DurationVar(&j.keep, "keep", 0, "how long results are kept after the end (default 168h)")
	own(f)
}

// own marks all flags of a command that are no standing settings.
func own(f *pflag.FlagSet) {
	f.VisitAll(func(f *pflag.Flag) {
		if f.Annotations == nil {
			f.Annotations = map[string][]string{}
		}
		f.Annotations[ownKey] = []string{"yes"}
	})
}

// request makes a request of the flags. anyExit says that a program's exit code is its own affair unless it is to be retried.
func (j *jobFlags) request(a *app, p client.JobProgram, anyExit bool) (client.JobRequest, error) {
	req := client.JobRequest{
		Name: j.name, Program: p, Cores: j.cores, Memory: int64(j.memory), Time: j.time.Seconds(), Output: int64(j.output),
		Exclusive: j.exclusive, AnyExit: anyExit && j.retries < 0, Needs: j.needs, Priority: j.priority, Keep: j.keep.Seconds(), Fresh: j.fresh,
	}
	if j.retries >= 0 {
		req.Failures = j.retries + 1
	}
	if req.Name == "" {
		req.Name = programName(p)
	}
	if p.Kind == "proc" && !hasNeed(j.needs, "os") {
		req.Needs = append(req.Needs[:len(req.Needs):len(req.Needs)], "os="+runtime.GOOS)
	}
	for _, e := range j.env {
		name, _, ok := strings.Cut(e, "=")
		value, there := a.env(name)
		switch {
		case ok:
			req.Program.Env = append(req.Program.Env, e)
		case there:
			req.Program.Env = append(req.Program.Env, name+"="+value)
		default:
			return req, usagef("write --env NAME=VALUE", "--env %s: this shell has no such variable", clean(name))
		}
	}
	for _, in := range j.inputs {
		input, err := parseInput(in)
		if err != nil {
			return req, err
		}
		req.Inputs = append(req.Inputs, input)
	}
	return req, nil
}

func hasNeed(needs []string, name string) bool {
	for _, n := range needs {
		if strings.HasPrefix(n, name+"=") {
			return true
		}
	}
	return false
}

func programName(p client.JobProgram) string {
	name := p.Path
	if p.Module != nil {
		name = strings.TrimSuffix(p.Module.Path+p.Module.File, wasmSuffix)
	}
	return cut(clean(path.Base(filepath.ToSlash(name))), 64)
}

// parseInput reads PATH[=NAME].
func parseInput(text string) (client.JobInput, error) {
	at, name, ok := strings.Cut(text, "=")
	src, err := source(at)
	if err != nil {
		return client.JobInput{}, err
	}
	if !ok {
		name = path.Base(filepath.ToSlash(src.Path + src.File))
	}
	if name == "" || name == "/" || name == "." {
		return client.JobInput{}, usagef("write it as PATH=NAME", "--in %s: tasks need a name to find it by", clean(text))
	}
	return client.JobInput{Name: name, From: src}, nil
}

// source is where a path that somebody typed leads: into the pool, or to a file or folder of this machine, which is there.
func source(text string) (client.JobSource, error) {
	if isPoolPath(text) {
		return client.JobSource{Path: text}, nil
	}
	local := strings.TrimPrefix(text, localPrefix)
	at, err := filepath.Abs(local)
	if err != nil || local == "" {
		return client.JobSource{}, usagef("", "%q is no path", clean(text))
	}
	if _, err := os.Stat(at); errors.Is(err, fs.ErrNotExist) {
		return client.JobSource{}, client.Errorf(client.KindMissing, "paths in the pool begin with /", "there is no file or folder %s", clean(local))
	} else if err != nil {
		return client.JobSource{}, err
	}
	return client.JobSource{File: at}, nil
}

// program reads what is to be run: a module if its name says so, or else a native command.
func program(words []string) (client.JobProgram, error) {
	if !strings.HasSuffix(words[0], wasmSuffix) {
		return client.JobProgram{Kind: "proc", Path: words[0], Args: words[1:]}, nil
	}
	src, err := source(words[0])
	return client.JobProgram{Kind: "wasm", Module: &src, Args: words[1:]}, err
}

// programArgs splits a command's arguments into what stands before the program, and the program.
func programArgs(cmd *cobra.Command, args []string) (before, words []string, err error) {
	dash := cmd.ArgsLenAtDash()
	switch {
	case dash < 0 && len(args) > 0:
		return nil, nil, usagef("a module's name ends with .wasm, and a native command comes after --, as in `shoal run -- sort -r`",
			"%q names no program", clean(args[len(args)-1]))
	case dash < 0 || dash == len(args):
		return nil, nil, usagef("usage: "+cmd.UseLine(), "the program is missing")
	}
	return args[:dash], args[dash:], nil
}

// programKey marks the commands whose arguments end with a program, which has flags of its own.
const programKey = "program"

// withDash puts -- before the module that such a command runs, so that its flags are not taken for shoal's.
func withDash(root *cobra.Command, args []string) []string {
	flags := root.PersistentFlags()
	var cmd *cobra.Command
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return args
		case strings.HasPrefix(arg, "-") && len(arg) > 1:
			if takesValue(flags, arg) {
				i++
			}
		case cmd == nil:
			found, _, err := root.Find([]string{arg})
			if err != nil || found.Annotations[programKey] == "" {
				return args
			}
			cmd = found
			flags = pflag.NewFlagSet(arg, pflag.ContinueOnError)
			flags.AddFlagSet(root.PersistentFlags())
			flags.AddFlagSet(cmd.Flags())
		case strings.HasSuffix(arg, wasmSuffix) && (cmd.Annotations[programKey] == "first" || !dashed(args[i:])):
			return append(append(args[:i:i], "--"), args[i:]...)
		case cmd.Annotations[programKey] == "first":
			return args
		}
	}
	return args
}

func dashed(args []string) bool {
	for _, a := range args {
		if a == "--" {
			return true
		}
	}
	return false
}

// takesValue reports whether the argument after a flag is its value.
func takesValue(flags *pflag.FlagSet, arg string) bool {
	name, long := strings.CutPrefix(arg, "--")
	if strings.Contains(arg, "=") {
		return false
	}
	f := flags.Lookup(name)
	if !long {
		f = flags.ShorthandLookup(arg[len(arg)-1:])
	}
	return f != nil && f.NoOptDefVal == ""
}

// readStdin reads standard input for a job: to its end if it is a pipe or a file, and a terminal only when asked to.
func (a *app) readStdin(ctx context.Context, c *client.Client, typed bool) (*client.JobSource, error) {
	if f, ok := a.in.(*os.File); ok {
		info, err := f.Stat()
		device := err == nil && info.Mode()&fs.ModeCharDevice != 0
		if err != nil || device && (!typed || !term.IsTerminal(int(f.Fd()))) {
			return nil, nil //nolint:nilerr // a standard input that was closed is an empty one
		}
	}
	head, err := readHead(ctx, a.in)
	switch {
	case err != nil:
		return nil, err
	case len(head) == 0:
		return nil, nil
	case len(head) <= stdinInline:
		return &client.JobSource{Text: head}, nil
	}
	f, err := c.JobStore(ctx, "stdin", io.MultiReader(bytes.NewReader(head), a.in))
	return &client.JobSource{Stored: &f}, err
}

// readHead reads what goes with a request, and a byte more if there is one. It returns when ctx ends; then the read is left
// behind, to end with the process.
func readHead(ctx context.Context, r io.Reader) ([]byte, error) {
	type result struct {
		head []byte
		err  error
	}
	got := make(chan result, 1)
	go func() {
		head, err := io.ReadAll(io.LimitReader(r, stdinInline+1))
		got <- result{head, err}
	}()
	select {
	case r := <-got:
		return r.head, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
