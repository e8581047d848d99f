// Package testnet runs scenarios: real peers, each a process of the shoal binary with a home of its own, faults by a
// script, and what must hold whatever happens. Its sub-packages are the language (script), the report (report), the
// emulated network (netem), the simulator (sim), measurements (bench) and the repository's rules (tidy).
//
// Peers stand on a *ground*: network namespaces joined by an emulated network where there are rights for that, processes on
// loopback elsewhere, where what cannot be done is reported as skipped. Nothing is sent to an address outside of the
// namespaces or loopback. A *promise* is looked at at the end of every scenario; one that is broken makes the run fail.
//
// The package drives peers only as a person could: by starting and killing processes and through their local API.
package testnet

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-os/shoal/testnet/report"
	"github.com/shoal-os/shoal/testnet/script"
)

//go:embed scenarios/*.txt
var shipped embed.FS

// ErrBroken is what Run's error wraps when a promise was broken or a step failed; the report tells which.
var ErrBroken = errors.New("testnet: not everything held")

// Ground says where peers stand.
type Ground string

// The grounds.
const (
	GroundAuto       Ground = "auto"       // namespaces if they can be had
	GroundNamespaces Ground = "namespaces" // or an error
	GroundProcesses  Ground = "processes"
)

// Config is a run.
type Config struct {
	Scenario string // the name of a shipped one, or the path of a file
	Peers    int    // 0: as the scenario says
	Seed     uint64
	Short    bool
	Ground   Ground    // empty is auto
	Binary   string    // the shoal program; empty is the running one
	Previous string    // an older one, with which peers of a scenario that upgrades begin; empty: they upgrade to the same
	Version  string    // of Binary, for the report
	Dir      string    // where homes and data go; empty is a folder of its own that is removed at the end
	Keep     bool      // leave Dir as it is at the end
	Log      io.Writer // a line for each thing that happens; nil is nowhere
}

// Scenarios lists the shipped scenarios by name.
func Scenarios() []string {
	entries, err := fs.ReadDir(shipped, "scenarios")
	if err != nil {
		panic(err) // it is part of the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".txt"))
	}
	return names
}

// Load reads a scenario: a shipped one by its name, any other by its path.
func Load(name string) (script.Scenario, error) {
	if slices.Contains(Scenarios(), name) {
		data, err := shipped.ReadFile(path.Join("scenarios", name+".txt"))
		if err != nil {
			panic(err)
		}
		return script.Parse(name, string(data))
	}
	info, err := os.Stat(name)
	if err != nil || info.IsDir() {
		return script.Scenario{}, fmt.Errorf("testnet: there is no scenario %q: the shipped ones are %s, and others are given by their path", name, strings.Join(Scenarios(), ", "))
	}
	if info.Size() > script.SourceMax {
		return script.Scenario{}, fmt.Errorf("testnet: %s: a scenario has at most %d bytes", name, script.SourceMax)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return script.Scenario{}, fmt.Errorf("testnet: %w", err)
	}
	return script.Parse(strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)), string(data))
}

// PlanOf makes the plan of a run without running it.
func PlanOf(cfg Config) (script.Plan, error) {
	s, err := Load(cfg.Scenario)
	if err != nil {
		return script.Plan{}, err
	}
	return s.Plan(script.Options{Peers: cfg.Peers, Seed: cfg.Seed, Short: cfg.Short})
}

// Run runs a scenario. The report is there whenever the peers could be set up at all; the error wraps ErrBroken when the
// run was made and something did not hold. When ctx ends, all is taken down and the error is the context's.
func Run(ctx context.Context, cfg Config) (_ *report.Report, err error) {
	plan, err := PlanOf(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	if cfg.Binary == "" {
		if cfg.Binary, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("testnet: %w", err)
		}
	}
	if cfg.Dir == "" {
		if cfg.Dir, err = os.MkdirTemp("", "shoal-net-"); err != nil {
			return nil, fmt.Errorf("testnet: %w", err)
		}
		if !cfg.Keep {
			defer os.RemoveAll(cfg.Dir)
		}
	}
	ground, why, err := newGround(cfg.Ground, plan)
	if err != nil {
		return nil, err
	}
	w, err := newWorld(cfg, plan, ground, why)
	if err != nil {
		return nil, errors.Join(err, ground.close())
	}
	defer func() { err = errors.Join(err, w.close()) }()
	w.run(ctx)
	out := w.finish()
	switch {
	case ctx.Err() != nil:
		return out, context.Cause(ctx)
	case !out.OK():
		return out, fmt.Errorf("%w: %s", ErrBroken, out.Verdict())
	}
	return out, nil
}

// logLine writes a line of what happens.
func (w *world) logLine(format string, args ...any) {
	w.logging.Lock()
	defer w.logging.Unlock()
	fmt.Fprintf(w.cfg.Log, "%7.1fs  %s\n", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}
