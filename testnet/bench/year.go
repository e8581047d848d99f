package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/shoal-os/shoal/storage/placement/sim"
)

// year is one pool of laptops, simulated many times over.
type year struct {
	Name   string     `json:"name"`
	Result sim.Result `json:"result"`
	Took   float64    `json:"took_s"`
}

// runYear plays a year of twenty laptops that sleep, travel and die, against a repairer without patience.
func runYear(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("bench year", flag.ContinueOnError)
	seeds := fs.Int("seeds", 20, "years to play; a thousand take an hour on two cores")
	first := fs.Uint64("first", 1, "the first seed")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || *seeds < 1 {
		return errors.New("year: bad arguments; see year --help")
	}
	var years []year
	for _, y := range []struct {
		name  string
		seeds int
		cfg   sim.Config
	}{
		{"two deaths a year in the pool", *seeds, sim.Config{}},
		{"each laptop dies twice a year", max(*seeds/10, 1), sim.Config{Deaths: 40}},
		{"an eager repairer", max(*seeds/10, 1), sim.Config{Eager: true}},
	} {
		y.cfg.Seeds, y.cfg.First = y.seeds, *first
		y.cfg.Progress = func(done int) {
			if done%10 == 0 || done == y.seeds {
				progress("%s: %d of %d", y.name, done, y.seeds)
			}
		}
		began := time.Now()
		r, err := sim.Run(y.cfg)
		if err != nil {
			return fmt.Errorf("%s: %w", y.name, err)
		}
		years = append(years, year{y.name, r, time.Since(began).Seconds()})
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(years)
	}
	return printYears(years)
}

func printYears(years []year) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "seeds\tdeaths\tlost\ttogether\tlate\tother\trepair GiB/day\tcopies\treadable\ts\t")
	for _, y := range years {
		r := y.Result
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%.2f\t%.2f\t%.4f\t%.0f\t%s\n", r.Seeds, r.Deaths, r.Lost(), r.Together, r.Late, r.Other,
			r.RepairPerDay()/(1<<30), r.Copies, r.Reachable, y.Took, y.Name)
	}
	return w.Flush()
}
