package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/tasks/exec"
)

const (
	untilTimeout  = 30 * time.Second
	untilInterval = 20 * time.Millisecond
)

// TestMain lets the test binary be the program that the scripts run.
func TestMain(m *testing.M) {
	exec.Child() // peers of the scripts start it again to run guests
	testscript.Main(m, map[string]func(){"shoal": func() { os.Exit(Main()) }})
}

// TestScripts runs testdata/*.txtar, each in a folder of its own. Peers listen
// on loopback and look for nobody.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("SHOAL_HOME", filepath.Join(env.WorkDir, "h"))
			env.Setenv("SHOAL_LISTEN", "/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1")
			env.Setenv("SHOAL_LAN", "false")
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("USERPROFILE", env.WorkDir)
			env.Setenv("TERM", "xterm")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a race-built program otherwise sleeps a second at its end
			env.Defer(func() { stopPeers(t, env.WorkDir) })
			return copyModule(env.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      cmdExits,
			"untilexits": cmdUntilExits,
			"spoil":      cmdSpoil,
			"until":      cmdUntil,
			"keep":       cmdKeep,
			"sametree":   cmdSameTree,
			"random":     cmdRandom,
			"damage":     cmdDamage,
			"term":       cmdTerm,
			"freeport":   cmdFreePort,
			"fetch":      cmdFetch,
			"web":        cmdWeb,
		},
	})
}

// copyModule puts a small module where scripts find it.
func copyModule(dir string) error {
	data, err := os.ReadFile("../examples/wordcount/wordcount.wasm")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "wordcount.wasm"), data, 0o644)
}

// stopPeers ends every peer that a script left running in a home below dir.
func stopPeers(t *testing.T, dir string) {
	endpoints, err := filepath.Glob(filepath.Join(dir, "*", client.EndpointFile))
	if err != nil {
		t.Error(err)
	}
	for _, path := range endpoints {
		home := filepath.Dir(path)
		c, err := client.Open(home)
		if err != nil {
			continue
		}
		_, err = c.Down(context.Background())
		c.Close()
		if err != nil {
			continue // killed by its script, and gone
		}
		if !eventually(func() bool { return node.CheckFree(home) == nil }) {
			t.Errorf("the peer of %s does not stop", home)
		}
	}
}

// eventually waits for a condition.
func eventually(holds func() bool) bool {
	tick := time.NewTicker(untilInterval)
	defer tick.Stop()
	deadline := time.After(untilTimeout)
	for {
		if holds() {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
}

// cmdExits runs a command and checks its exit code: exits CODE COMMAND…
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := exitOf(ts, args[1:]); got != want {
		ts.Fatalf("%s exited with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// exitOf runs a command and returns its exit code.
func exitOf(ts *testscript.TestScript, args []string) int {
	var exit *osexec.ExitError
	err := ts.Exec(args[0], args[1:]...)
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

// cmdUntilExits runs a command again and again until it exits with a code: untilexits CODE COMMAND…
func cmdUntilExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: untilexits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if !eventually(func() bool { return exitOf(ts, args[1:]) == want }) {
		ts.Fatalf("%s never exited with %d", strings.Join(args[1:], " "), want)
	}
}

// cmdSpoil puts a text into a variable, cut short or with another character in the middle: spoil NAME cut|alter TEXT
func cmdSpoil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 || len(args[2]) < 16 {
		ts.Fatalf("usage: spoil NAME cut|alter TEXT")
	}
	text, middle, other := args[2], len(args[2])/2, "a"
	if text[middle] == 'a' {
		other = "b"
	}
	switch args[1] {
	case "cut":
		text = text[:len(text)-8]
	case "alter":
		text = text[:middle] + other + text[middle+1:]
	}
	ts.Setenv(args[0], text)
}

// cmdUntil runs a command again and again until it succeeds and its stdout
// matches: until PATTERN COMMAND…
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	if !eventually(func() bool {
		return ts.Exec(args[1], args[2:]...) == nil && pattern.MatchString(ts.ReadFile("stdout"))
	}) {
		ts.Fatalf("%q never matched", args[0])
	}
}

// cmdKeep puts the last stdout, trimmed, into a variable: keep NAME
func cmdKeep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keep NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// cmdRandom makes a file of bytes that depend on its size only: random PATH BYTES
func cmdRandom(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: random PATH BYTES")
	}
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)}).Read(data)
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, data, 0o644))
}

// cmdTerm sends SIGTERM to the command that was last put into the background: term
func cmdTerm(ts *testscript.TestScript, neg bool, args []string) {
	cmds := ts.BackgroundCmds()
	if neg || len(args) != 0 || len(cmds) == 0 {
		ts.Fatalf("usage: term, after a command in the background")
	}
	ts.Check(cmds[len(cmds)-1].Process.Signal(syscall.SIGTERM))
}

// cmdDamage overwrites a file with something shorter: damage PATH
func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage PATH")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("damaged"), 0o600))
}

// cmdSameTree compares two files or folders, links by their targets: [!] sametree A B
func cmdSameTree(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: sametree A B")
	}
	a, err := listTree(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := listTree(ts.MkAbs(args[1]))
	ts.Check(err)
	if (a == b) == neg {
		ts.Fatalf("trees:\n%s\nand\n%s", a, b)
	}
}

// listTree writes a tree as text: a line for each entry, with its content's hash.
func listTree(root string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		what, err := describeEntry(path, d)
		fmt.Fprintf(&b, "%s %s\n", rel, what)
		return err
	})
	return b.String(), err
}

// describeEntry is an entry's kind with its content's hash or its target.
func describeEntry(path string, d fs.DirEntry) (string, error) {
	switch {
	case d.IsDir():
		return "dir", nil
	case d.Type() == fs.ModeSymlink:
		target, err := os.Readlink(path)
		return "-> " + target, err
	default:
		data, err := os.ReadFile(path)
		return fmt.Sprintf("%d %x", len(data), sha256.Sum256(data)), err
	}
}
