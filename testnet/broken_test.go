package testnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/shoal-os/shoal/testnet/report"
)

// brokenEnv asks for TestBreakagesAreNoticed, which builds the program three times.
const brokenEnv = "SHOAL_TESTNET_BROKEN"

// All programs have the crash model of lossydisk, so that they differ in what is broken alone. What is kept of a large file without a
// sync is nothing, so without it only small files work at all: it is dropped in a program of its own.
const (
	soundTags     = "lossydisk"
	noSyncTags    = "breakfsync"
	uncheckedTags = "lossydisk,breakverify,breaktoken"
)

const (
	wholeFiles = "every acknowledged file is whole"
	onlyOnce   = "each task is committed once, with the right output"
)

// breakages are scenarios that cannot go well if one thing is missing, and the promise that is then broken.
var breakages = []struct {
	name, tags, promise, scenario string
}{
	{"fsync", noSyncTags, wholeFiles, `
about the power fails in the whole house after a put was acknowledged: whatever was not synced is gone
peers 3 reading=15s
start all
join all
expect together
put letters on p1 files=4 size=100B..20KiB
expect names
kill all
start all
`},
	{"verification", uncheckedTags, wholeFiles, `
about all who have a share send other bytes: whoever fetches it gets nothing, rather than those
peers 3
start all
share film on p1 files=2 size=3MiB
get film on p2
evil liar on p1,p2
try get film on p3 within 5s
`},
	{"token", uncheckedTags, onlyOnce, `
about a worker is stopped, its lease lapses, its tasks are done by others: then it goes on, and hands its results over too
peers 3 cores=2
start all
join all
expect together
map slow on p1 tasks=48 last=2s
expect works slow on p3
pause p3
expect passed slow on p3
resume p3
`},
}

// TestBreakagesAreNoticed: the testnet exits with 0 on each scenario with the program as it is, and with 1, by the right promise,
// when the fsync, the verification, or the check of an attempt's token is missing.
func TestBreakagesAreNoticed(t *testing.T) {
	if os.Getenv(brokenEnv) == "" {
		t.Skip("it builds the program three times: set " + brokenEnv + "=1")
	}
	if runtime.GOOS == "windows" {
		t.Skip("the testnet's peers are not stopped like that on Windows")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	for _, tags := range []string{soundTags, noSyncTags, uncheckedTags} {
		buildTagged(t, tags, filepath.Join(dir, tags))
	}
	for _, b := range breakages {
		path := filepath.Join(dir, b.name+".txt")
		if err := os.WriteFile(path, []byte(b.scenario), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Run(b.name+" kept", func(t *testing.T) {
			t.Parallel()
			if r, code := runProgram(t, filepath.Join(dir, soundTags), path); code != 0 || !r.OK() {
				t.Errorf("exit code %d, failed %q, broken %q", code, r.Failed, r.Broken())
			}
		})
		t.Run(b.name+" dropped", func(t *testing.T) {
			t.Parallel()
			if r, code := runProgram(t, filepath.Join(dir, b.tags), path); code != 1 || r.Failed != "" || !slices.Equal(r.Broken(), []string{b.promise}) {
				t.Errorf("exit code %d, failed %q, broken %q; it should be 1, by %q alone", code, r.Failed, r.Broken(), b.promise)
			}
		})
	}
}

func buildTagged(t *testing.T, tags, to string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-tags", tags, "-o", to, "github.com/shoal-os/shoal/cli/shoal")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// runProgram runs a scenario with the program's own testnet, and returns its report and its exit code.
func runProgram(t *testing.T, binary, scenario string) (*report.Report, int) {
	t.Helper()
	cmd := exec.Command(binary, "--home", t.TempDir(), "testnet", "--json", "--ground", "processes", scenario)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := new(report.Report)
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		t.Fatalf("%v: %s\n%s", err, out.String(), errs.String())
	}
	t.Cleanup(func() {
		t.Logf("%.1f s: %s", r.Took, r.Verdict())
		for _, p := range r.Promises {
			t.Logf("%s: held %v: %s", p.Name, p.Held, p.Text)
		}
	})
	return r, cmd.ProcessState.ExitCode()
}
