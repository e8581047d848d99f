package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/shoal-os/shoal/testnet/scale"
)

// runScale writes the page of what each peer costs against the size of the pool.
func runScale(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench scale", flag.ContinueOnError)
	peers := fs.String("measure", "", "measure so many real hosts in this process first, such as 10,30,100: about a quarter of an hour")
	quick := fs.Bool("quick", false, "small pools, and only print: to see that it works")
	page := fs.String("page", "testnet/SCALE.md", "the page whose tables are written; its plots are in scale/plots beside it")
	figures := fs.String("figures", "testnet/scale/measured.json", "what real hosts cost, as measured")
	only := fs.String("only", "", "of the page's parts only these, by name, separated by commas: lookup, gossip, links, roster, names, placement, inventory, market, summary, which needs most others")
	seed := fs.Uint64("seed", 1, "of all chance")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return errors.New("scale: bad arguments; see scale --help")
	}
	cfg := scale.Config{Seed: *seed, Progress: progress, CPU: ownCPU}
	if *only != "" {
		cfg.Only = strings.Split(*only, ",")
	}
	if *quick {
		cfg.Sizes = []int{10, 100, 1000}
	}
	if err := figuresFor(ctx, &cfg, *figures, *peers, *quick); err != nil {
		return err
	}
	sections, err := scale.Run(cfg)
	switch {
	case err != nil:
		return err
	case *quick:
		return scale.Print(os.Stdout, sections)
	}
	return scale.Write(*page, sections)
}

// figuresFor has real hosts measured if that is asked for, and reads what was measured before.
func figuresFor(ctx context.Context, cfg *scale.Config, path, peers string, quick bool) (err error) {
	if quick {
		return inTemporaryFolder(func(dir string) error {
			return quickScaleRun().measure(ctx, dir, &cfg.Measured, func() error { return nil })
		})
	}
	cfg.Measured, err = scale.Load(path)
	if peers == "" {
		return err
	}
	var sizes []int
	for _, text := range strings.Split(peers, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 3 {
			return fmt.Errorf("scale: %q is no number of hosts", text)
		}
		sizes = append(sizes, n)
	}
	return inTemporaryFolder(func(dir string) error {
		return newScaleRun(sizes).measure(ctx, dir, &cfg.Measured, func() error { return cfg.Measured.Save(path) })
	})
}

// machine says in a line what the figures are of.
func machine() string {
	name := runtime.GOARCH
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				name = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s", name, runtime.NumCPU(), runtime.GOOS)
}
