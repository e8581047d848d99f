package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the report for a terminal.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	t := r.Tally
	fmt.Fprintf(&b, "%s: %d peers as %s, seed %d, %.1f s\n", r.Scenario, len(r.Peers), r.Mode, r.Seed, r.Took)
	if r.Why != "" {
		fmt.Fprintf(&b, "not in namespaces: %s\n", r.Why)
	}
	facts := []string{
		fmt.Sprintf("%d of %d puts acknowledged (%d files, %s)", t.Acked, t.Puts, t.Files, Bytes(t.Bytes)),
		fmt.Sprintf("%d shares, %d gets", t.Shares, t.Gets),
		fmt.Sprintf("%d files read back, %s", t.Reads, Bytes(t.ReadBytes)),
		fmt.Sprintf("%d kills, %d stops, %d sleeps, %d partitions", t.Kills, t.Stops, t.Pauses, t.Cuts),
	}
	if t.Jumps > 0 {
		facts = append(facts, fmt.Sprintf("%d jumps of clocks", t.Jumps))
	}
	if t.Tried > 0 {
		facts = append(facts, fmt.Sprintf("%d of %d tries failed, as they may", t.TryFailed, t.Tried))
	}
	if t.Jobs > 0 {
		facts = append(facts, fmt.Sprintf("%d jobs, %d tasks", t.Jobs, t.Tasks))
	}
	if t.Sent > 0 {
		facts = append(facts, fmt.Sprintf("%s on the emulated network", Bytes(t.Sent)))
	}
	fmt.Fprintf(&b, "%s\n\n", strings.Join(facts, "\n"))
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "PEER\tUP\tSTARTS\tENDS\tMEMORY\tCPU\tSENT")
	for _, p := range r.Peers {
		up, starts, ends := 0.0, 0, map[string]int{}
		for _, l := range p.Lives {
			if l.State == "up" {
				up += l.To - l.From
			}
			if l.State == "starting" {
				starts++
			}
			if l.End != "" {
				ends[l.End]++
			}
		}
		sent := "–" // nobody counts what is not on the emulated network
		if t.Sent > 0 {
			sent = Bytes(p.Sent)
		}
		fmt.Fprintf(tab, "%s\t%.1f s\t%d\t%s\t%s\t%.1f s\t%s\n", p.Name, up, starts, countsText(ends), Bytes(p.RSS), p.CPU, sent)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	b.WriteByte('\n')
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "skipped  %s\n", s)
	}
	for _, p := range r.Promises {
		switch {
		case p.Skipped != "":
			fmt.Fprintf(&b, "-        %s: not looked at, %s\n", p.Name, p.Skipped)
		case p.Held:
			fmt.Fprintf(&b, "held     %s: %s\n", p.Name, p.Text)
		default:
			fmt.Fprintf(&b, "BROKEN   %s: %s\n", p.Name, p.Text)
		}
	}
	fmt.Fprintln(&b, r.Verdict())
	_, err := io.WriteString(w, b.String())
	return err
}

func countsText(counts map[string]int) string {
	var words []string
	for _, name := range []string{"killed", "stopped", "turned", "crashed"} {
		if n := counts[name]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, name))
		}
	}
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ", ")
}
