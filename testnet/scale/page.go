package scale

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// Print writes all tables for a terminal.
func Print(w io.Writer, sections []Section) error {
	for _, s := range sections {
		for _, t := range s.Tables {
			fmt.Fprintf(w, "\n%s\n", t.Name)
			tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, strings.Join(t.heads(), "\t"))
			for _, r := range t.Rows {
				fmt.Fprintln(tw, strings.Join(t.cells(r), "\t"))
			}
			if err := tw.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// markdown is a table as the page has it.
func (t Table) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n%s%s\n", strings.Join(t.heads(), " | "), map[bool]string{false: "|--:|---|", true: "|"}[t.Plain], strings.Repeat("--:|", len(t.Columns)))
	for _, r := range t.Rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(t.cells(r), " | "))
	}
	return b.String()
}

func (t Table) heads() []string {
	if t.Plain {
		return t.Columns
	}
	return append([]string{"peers", "basis"}, t.Columns...)
}

func (t Table) cells(r Row) []string {
	if t.Plain {
		return r.Cells
	}
	return append([]string{count(float64(r.N)), string(r.Basis)}, r.Cells...)
}

// The marks between which the page's tables stand. What is around them is written by people.
const (
	markOpen  = "<!-- table %s: written by go run ./testnet/bench scale -->\n"
	markClose = "<!-- end -->\n"
)

// Write puts the tables into the page, each between its marks, and the plots into the folder beside it. A table without
// marks, or marks without a table, are an error: the page would be stale.
func Write(page string, sections []Section) error {
	raw, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	text := string(raw)
	plots := filepath.Join(filepath.Dir(page), "scale", "plots")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	for _, s := range sections {
		for _, t := range s.Tables {
			if text, err = replace(text, t); err != nil {
				return err
			}
		}
		for _, p := range s.Plots {
			svg, err := p.SVG()
			if err == nil {
				err = os.WriteFile(filepath.Join(plots, p.Name+".svg"), svg, 0o644)
			}
			if err != nil {
				return fmt.Errorf("scale: %w", err)
			}
			if !strings.Contains(text, "plots/"+p.Name+".svg") {
				return fmt.Errorf("scale: the page does not show plots/%s.svg", p.Name)
			}
		}
	}
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	return nil
}

func replace(text string, t Table) (string, error) {
	open := fmt.Sprintf(markOpen, t.Name)
	before, rest, ok := strings.Cut(text, open)
	_, after, closed := strings.Cut(rest, markClose)
	if !ok || !closed {
		return "", fmt.Errorf("scale: the page has no marks for the table %s", t.Name)
	}
	return before + open + t.markdown() + markClose + after, nil
}
