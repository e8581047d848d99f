package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/testnet/report"
)

// runTestnet runs the program's testnet and returns its report, or skips where the ground cannot be had.
func runTestnet(t *testing.T, args ...string) (*report.Report, error) {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts several peers")
	}
	t.Parallel()
	page := filepath.Join(t.TempDir(), "report.html")
	cmd := exec.Command("shoal", append([]string{"--home", t.TempDir(), "testnet", "--json", "--report", page}, args...)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	runErr := cmd.Run()
	if strings.Contains(errs.String(), "no namespaces here") || strings.Contains(errs.String(), "netem: not possible here") {
		t.Skip(strings.TrimSpace(errs.String()))
	}
	r := new(report.Report)
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		t.Fatalf("%v, %v: %s\n%s", runErr, err, out.String(), errs.String())
	}
	if data, err := os.ReadFile(page); err != nil || !bytes.Contains(data, []byte("<svg")) {
		t.Errorf("the page: %v, %d bytes", err, len(data))
	}
	return r, runErr
}

func mustHold(t *testing.T, r *report.Report, err error) {
	t.Helper()
	if err == nil && r.OK() {
		return
	}
	var b strings.Builder
	_ = r.WriteTable(&b)
	t.Fatalf("%v\n%s", err, b.String())
}

// TestTestnetAsProcesses is the README's command, with fewer peers, where nobody has rights.
func TestTestnetAsProcesses(t *testing.T) {
	r, err := runTestnet(t, "--ground", "processes", "--peers", "3", "first-day")
	mustHold(t, r, err)
	if r.Tally.Acked != 3 || r.Tally.Kills != 1 || len(r.Peers) != 3 || len(r.Samples) == 0 {
		t.Errorf("%+v", r.Tally)
	}
}

// TestTestnetInNamespaces has each peer on a network of its own, which is cut and heals.
func TestTestnetInNamespaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cut.txt")
	const source = `
peers 3 store=50MiB patience=10m
network delay=1ms
start all
join all
expect together
put before on p1 files=3
expect safe
partition p1 | rest
expect alone p1
put here on p1
put there on p2
heal
expect together within 2m
expect names
read there on p1
read here on p2,p3
`
	if err := os.WriteFile(path, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := runTestnet(t, "--ground", "namespaces", path)
	mustHold(t, r, err)
	if r.Tally.Cuts != 1 || r.Tally.Acked != 3 || len(r.Spans) != 1 || r.Tally.Sent == 0 || r.Mode != "namespaces" {
		t.Errorf("%+v, %+v", r.Tally, r.Spans)
	}
}

// TestTestnetClocks has the clock of a running peer jump, which nobody suffers from, and outlive it.
func TestTestnetClocks(t *testing.T) {
	path, dir := filepath.Join(t.TempDir(), "clock.txt"), t.TempDir()
	const source = `
start all
join all
expect together
clock p2 +3h
put ahead on p2 files=3
read ahead on p1,p3
clock p3 -5h
map late on p3 tasks=3
await late
kill p2 for 1ms
expect together
`
	if err := os.WriteFile(path, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := runTestnet(t, "--ground", "processes", "--peers", "3", "--keep", dir, path)
	mustHold(t, r, err)
	if r.Tally.Jumps != 2 || len(r.Skipped) > 0 {
		t.Errorf("%d jumps, skipped: %q", r.Tally.Jumps, r.Skipped)
	}
	for name, want := range map[string]string{"p1": "0s", "p2": "3h0m0s", "p3": "-5h0m0s"} {
		if text, err := os.ReadFile(filepath.Join(dir, name, "clock.taken")); err != nil || string(text) != want {
			t.Errorf("%s goes by a clock that is wrong by %q, %v", name, text, err)
		}
	}
}

// TestTestnetGoesRed: a step that fails (nobody is left who has the film) is told, and the exit code says so.
func TestTestnetGoesRed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "red.txt")
	if err := os.WriteFile(path, []byte("start all\nshare film on p1\nkill p1\nget film on p2 within 3s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := runTestnet(t, "--ground", "processes", "--peers", "2", path)
	if err == nil || r.OK() || !strings.Contains(r.Failed, "line 4") {
		t.Errorf("%v, %q", err, r.Failed)
	}
}
