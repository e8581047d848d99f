package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// runOptions are the flags that every bench has.
type runOptions struct {
	runs int
	json bool
	only string
}

func addRunFlags(fs *flag.FlagSet, runs int) *runOptions {
	o := &runOptions{}
	fs.IntVar(&o.runs, "runs", runs, "measure everything this many times, in turns")
	fs.BoolVar(&o.json, "json", false, "print JSON")
	fs.StringVar(&o.only, "only", "", "measure only these, by name, separated by commas")
	return o
}

// testcase is one thing to measure. With a floor, each of its runs is compared with the floor's run of the same turn.
type testcase struct {
	name  string // unique; what --only takes
	group string
	what  string
	floor string
	run   func(context.Context) (sample, error)
}

// sample is one measurement.
type sample struct {
	rate       float64 // in the group's unit
	seconds    float64
	whole      float64 // the whole command with its start and end, in seconds; 0 if there is none
	send, recv result
	note       string // anything else worth showing
	failed     bool   // nothing else holds
}

// group is a table of cases that share a unit.
type group struct {
	name, title, unit string
	perCPU            float64 // CPU seconds are divided by this
	cpuTitle          string
}

type report struct {
	bench   string
	runs    int
	groups  []group
	cases   []testcase
	samples map[string][]sample
	before  func() error // called before each measurement
}

func newReport(bench string, runs int) *report {
	return &report{bench: bench, runs: runs, samples: map[string][]sample{}, before: func() error { return nil }}
}

// measure runs all cases, turn by turn so that a busy minute of the machine falls on all alike, and prints the report. A
// measurement that fails is counted and does not stop the others; the error at the end says so.
func (r *report) measure(ctx context.Context, opts *runOptions, cases []testcase) error {
	if err := r.choose(opts.only, cases); err != nil {
		return err
	}
	var failures []error
	for turn := range opts.runs {
		for _, c := range r.cases {
			if err := r.before(); err != nil {
				return err
			}
			settle()
			s, err := c.run(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if s.failed = err != nil; s.failed {
				failures = append(failures, fmt.Errorf("%s: %w", c.name, err))
				progress("run %d of %d: %-12s failed: %v", turn+1, opts.runs, c.name, err)
			} else {
				progress("run %d of %d: %-12s %10.0f %s", turn+1, opts.runs, c.name, s.rate, r.group(c).unit)
			}
			r.samples[c.name] = append(r.samples[c.name], s)
		}
	}
	write := r.writeTable
	if opts.json {
		write = r.writeJSON
	}
	if err := write(os.Stdout); err != nil {
		return err
	}
	if len(failures) > 0 {
		return fmt.Errorf("%d measurements failed, the first of them %w", len(failures), failures[0])
	}
	return nil
}

// choose keeps the cases that were asked for, and the floors that those need.
func (r *report) choose(only string, cases []testcase) error {
	if only == "" {
		r.cases = cases
		return nil
	}
	wanted := map[string]bool{}
	for _, name := range strings.Split(only, ",") {
		i := slices.IndexFunc(cases, func(c testcase) bool { return c.name == name })
		if i < 0 {
			var names []string
			for _, c := range cases {
				names = append(names, c.name)
			}
			return fmt.Errorf("nothing is called %q; there are %s", name, strings.Join(names, ", "))
		}
		wanted[name] = true
		wanted[cases[i].floor] = true
	}
	r.cases = slices.DeleteFunc(slices.Clone(cases), func(c testcase) bool { return !wanted[c.name] })
	return nil
}

func (r *report) group(c testcase) group {
	i := slices.IndexFunc(r.groups, func(g group) bool { return g.name == c.group })
	return r.groups[i]
}

// row is a case's figures, summed up.
type row struct {
	Name    string    `json:"name"`
	What    string    `json:"what"`
	Unit    string    `json:"unit"`
	Runs    []float64 `json:"runs"`   // rate of each turn
	Median  float64   `json:"median"` // of the runs
	Best    float64   `json:"best"`
	Floor   string    `json:"floor,omitempty"`
	Ratio   float64   `json:"ratio,omitempty"` // median of the turns' ratios to the floor's run of the same turn
	Seconds float64   `json:"seconds"`         // median time
	Whole   float64   `json:"whole_command_s,omitempty"`
	SendCPU float64   `json:"send_cpu_s"` // median, in seconds per GiB or per run as the group has it
	RecvCPU float64   `json:"receive_cpu_s,omitempty"`
	SendRSS int64     `json:"send_rss_bytes"` // greatest of all runs
	RecvRSS int64     `json:"receive_rss_bytes,omitempty"`
	Note    string    `json:"note,omitempty"`   // of the last turn
	Failed  int       `json:"failed,omitempty"` // runs that gave nothing
}

func (r *report) row(c testcase) row {
	g, samples := r.group(c), r.samples[c.name]
	out := row{Name: c.name, What: c.what, Unit: g.unit, Floor: c.floor}
	var ratios, seconds, whole, send, recv []float64
	for i, s := range samples {
		if s.failed {
			out.Failed++
			continue
		}
		out.Runs = append(out.Runs, s.rate)
		if floor := r.samples[c.floor]; i < len(floor) && !floor[i].failed {
			ratios = append(ratios, s.rate/floor[i].rate)
		}
		out.Note = s.note
		seconds, whole = append(seconds, s.seconds), append(whole, s.whole)
		send, recv = append(send, s.send.CPU/g.perCPU), append(recv, s.recv.CPU/g.perCPU)
		out.SendRSS, out.RecvRSS = max(out.SendRSS, s.send.RSS), max(out.RecvRSS, s.recv.RSS)
	}
	out.Median, out.Best, out.Ratio = median(out.Runs), slices.Max(append(out.Runs, 0)), median(ratios)
	out.Seconds, out.Whole = median(seconds), median(whole)
	out.SendCPU, out.RecvCPU = median(send), median(recv)
	return out
}

// median is 0 for no values.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	switch n := len(v); {
	case n == 0:
		return 0
	case n%2 == 0:
		return (v[n/2-1] + v[n/2]) / 2
	default:
		return v[n/2]
	}
}

func (r *report) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "%s on %s/%s, %d cores, %s; median of %d runs, in turns\n",
		r.bench, runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), r.runs)
	for _, g := range r.groups {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		rows := 0
		for _, c := range r.cases {
			if c.group != g.name {
				continue
			}
			if rows++; rows == 1 {
				fmt.Fprintf(w, "\n%s\n", g.title)
				fmt.Fprintf(t, "%s\tbest\tratio\tto\ts\twhole s\tsend\trecv %s\tsend\trecv RSS MB\t  \n", g.unit, g.cpuTitle)
			}
			x := r.row(c)
			what := c.name + ": " + c.what
			if x.Note != "" {
				what += " (" + x.Note + ")"
			}
			if x.Failed > 0 {
				what += fmt.Sprintf(" FAILED in %d of %d runs", x.Failed, r.runs)
			}
			fmt.Fprintf(t, "%.0f\t%.0f\t%s\t%s\t%.3f\t%s\t%s\t%s\t%s\t%s\t  %s\n", x.Median, x.Best, number("%.2f", x.Ratio), dash(x.Floor), x.Seconds,
				number("%.3f", x.Whole), number("%.2f", x.SendCPU), number("%.2f", x.RecvCPU), megabytes(x.SendRSS), megabytes(x.RecvRSS), what)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func number(format string, v float64) string {
	if v == 0 || math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func megabytes(n int64) string { return number("%.0f", float64(n)/1e6) }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (r *report) writeJSON(w io.Writer) error {
	type table struct {
		Title   string `json:"title"`
		CPUUnit string `json:"cpu_unit"`
		Rows    []row  `json:"rows"`
	}
	out := struct {
		Bench  string           `json:"bench"`
		OS     string           `json:"os"`
		Arch   string           `json:"arch"`
		Cores  int              `json:"cores"`
		Go     string           `json:"go"`
		Runs   int              `json:"runs"`
		Groups map[string]table `json:"groups"`
	}{r.bench, runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), r.runs, map[string]table{}}
	for _, g := range r.groups {
		t := table{Title: g.title, CPUUnit: g.cpuTitle}
		for _, c := range r.cases {
			if c.group == g.name {
				t.Rows = append(t.Rows, r.row(c))
			}
		}
		if len(t.Rows) > 0 {
			out.Groups[g.name] = t
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
