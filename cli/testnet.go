package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/testnet"
	"github.com/shoal-os/shoal/testnet/report"
)

// testnetFlags are what of a run is chosen on the command line.
type testnetFlags struct {
	cfg        testnet.Config
	ground     string
	page       string
	list, plan bool
}

func newTestnet(a *app) *cobra.Command {
	var f testnetFlags
	cmd := &cobra.Command{
		Use:   "testnet [flags] SCENARIO",
		Short: "Start a pool of real local peers, break things by a script, and see what held",
		Long: "Starts real peers on this machine, each a process with a home of its own, does to them what the\n" +
			"scenario says (kills, sleep, partitions, full and slow disks, clocks that jump), and then looks whether every\n" +
			"promise was kept: files whole, names equal, nothing crashed. It exits with 1 when one was not.\n\n" +
			"Where it may (root on Linux, or a system that lets users make networks) each peer is in a network\n" +
			"of its own and the network between them is emulated; elsewhere they are processes on loopback,\n" +
			"and what cannot be done is reported as skipped. Nothing is sent to any other machine.\n\n" +
			"Scenarios: " + strings.Join(testnet.Scenarios(), ", ") + "; or the path of a file.",
		Example: "  shoal testnet --peers 5 first-day\n  shoal testnet --peers 20 --seed 7 --report churn.html churn",
		Args:    argsRange(0, 1, "scenario"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.list {
				return a.listScenarios()
			}
			if len(args) == 0 {
				return usagef("there are "+strings.Join(testnet.Scenarios(), ", "), "the scenario is missing")
			}
			f.cfg.Scenario, f.cfg.Ground = args[0], testnet.Ground(f.ground)
			return a.testnet(cmd, f)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.cfg.Peers, "peers", 0, "how many peers (default as the scenario says)")
	flags.Uint64Var(&f.cfg.Seed, "seed", 1, "fixes all that is left to chance: the same seed gives the same faults and files")
	flags.BoolVar(&f.cfg.Short, "short", false, "shorten the scenario as far as it allows")
	flags.StringVar(&f.page, "report", "", "write the report as one HTML page to this file")
	flags.StringVar(&f.ground, "ground", string(testnet.GroundAuto), "where peers stand: namespaces, processes, or auto")
	flags.StringVar(&f.cfg.Dir, "keep", "", "keep homes, logs and data in this folder")
	flags.StringVar(&f.cfg.Previous, "previous", "", "an older shoal program: peers of a scenario that upgrades begin with it (default the same program)")
	flags.BoolVar(&f.list, "list", false, "list the shipped scenarios")
	flags.BoolVar(&f.plan, "plan", false, "print what would happen and when, and do nothing")
	return cmd
}

func (a *app) listScenarios() error {
	var rows [][]string
	for _, name := range testnet.Scenarios() {
		s, err := testnet.Load(name)
		if err != nil {
			return err
		}
		rows = append(rows, []string{name, s.About})
	}
	if a.json {
		return a.printJSON(rows)
	}
	return table(a.out, rows)
}

func (a *app) testnet(cmd *cobra.Command, f testnetFlags) error {
	switch testnet.Ground(f.ground) {
	case testnet.GroundAuto, testnet.GroundNamespaces, testnet.GroundProcesses:
	default:
		return usagef("", "--ground is namespaces, processes or auto, not %q", clean(f.ground))
	}
	plan, err := testnet.PlanOf(f.cfg)
	if err != nil {
		return usagef("", "%s", clean(err.Error()))
	}
	if f.plan {
		return a.printPlan(plan)
	}
	if f.cfg.Ground != testnet.GroundProcesses {
		code, ran, why := testnet.Inside(cmd.Context())
		if ran {
			if code != 0 {
				return silent{code}
			}
			return nil
		}
		if why != nil && f.cfg.Ground == testnet.GroundNamespaces {
			return fmt.Errorf("testnet: no namespaces here: %w", why)
		}
	}
	f.cfg.Version, f.cfg.Log, f.cfg.Keep = version(), a.err, f.cfg.Dir != ""
	if a.json {
		f.cfg.Log = nil
	}
	out, err := testnet.Run(cmd.Context(), f.cfg)
	if out == nil {
		return err
	}
	if err := a.writeReport(out, f.page); err != nil {
		return err
	}
	if errors.Is(err, testnet.ErrBroken) {
		return silent{exitFailure} // the report has said it all
	}
	return err
}

func (a *app) writeReport(r *report.Report, page string) error {
	if page != "" {
		f, err := os.Create(page)
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		if err := errors.Join(r.WriteHTML(f), f.Close()); err != nil {
			return fmt.Errorf("report: %w", err)
		}
		a.notef("report: %s", clean(page))
	}
	if a.json {
		return a.printJSON(r)
	}
	return r.WriteTable(a.out)
}
