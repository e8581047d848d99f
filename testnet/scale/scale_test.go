package scale

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// pretended are figures in place of measured ones: what is tested is what is made of them.
func pretended() Measured {
	flow := func(n float64) []Flow {
		return []Flow{{"/shoal/pool/1", 6.5 * n, n / 2}, {"/shoal/directory/1", n, n / 60}}
	}
	return Measured{
		Pools: []Pool{
			{Peers: 10, Idle: flow(9), IdleCPU: 0.002, Memory: 2e6, JoinCPU: 2, Gossip: Spread{Copies: 7, CPU: 1e-3, Delivered: 1}, Records: Spread{Bytes: 3000, CPU: 1e-3}},
			{Peers: 40, Idle: flow(39), IdleCPU: 0.008, Memory: 5e6, JoinCPU: 30, Gossip: Spread{Copies: 8, CPU: 1e-3, Delivered: 1}, Records: Spread{Bytes: 3000, CPU: 1e-3}},
		},
		Tables: []Kad{{Peers: 10, Find: Lookup{Asked: 9, Bytes: 9000}, Provide: Lookup{Asked: 18}, Found: 1}, {Peers: 40, Find: Lookup{Asked: 20, Bytes: 20000}, Provide: Lookup{Asked: 40}, Found: 1}},
	}
}

// TestRun has all sections run small, and the page written from them.
func TestRun(t *testing.T) {
	sections, err := Run(Config{Seed: 7, Sizes: []int{10, 60}, Measured: pretended(), Progress: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	var page, terminal strings.Builder
	page.WriteString("Words before.\n")
	for _, s := range sections {
		for _, tb := range s.Tables {
			for _, r := range tb.Rows {
				if len(r.Cells) != len(tb.Columns) {
					t.Errorf("%s: %d cells in %d columns: %q", tb.Name, len(r.Cells), len(tb.Columns), r.Cells)
				}
			}
			page.WriteString(strings.ReplaceAll(markOpen, "%s", tb.Name) + "stale\n" + markClose)
		}
		for _, p := range s.Plots {
			page.WriteString("![](scale/plots/" + p.Name + ".svg)\n")
			checkPlot(t, p)
		}
	}
	if err := Print(&terminal, sections); err != nil || strings.Count(terminal.String(), "\n") < 50 {
		t.Errorf("%v: %s", err, terminal.String())
	}
	file := filepath.Join(t.TempDir(), "PAGE.md")
	if err := errors.Join(os.WriteFile(file, []byte(page.String()), 0o644), Write(file, sections)); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(file)
	if bytes.Contains(text, []byte("stale")) || !bytes.Contains(text, []byte("| 60 |")) || !bytes.HasPrefix(text, []byte("Words before.\n")) {
		t.Errorf("the page reads\n%s", text)
	}
	if err := os.WriteFile(file, []byte("no marks"), 0o644); err != nil {
		t.Fatal(err)
	}
	if Write(file, sections) == nil {
		t.Error("a page without marks was written")
	}
}

func checkPlot(t *testing.T, p Plot) {
	t.Helper()
	svg, err := p.SVG()
	if err != nil {
		t.Error(err)
		return
	}
	points := 0
	for _, s := range p.Series {
		points += len(s.Points)
	}
	d := xml.NewDecoder(bytes.NewReader(svg))
	marks := 0
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			return
		}
		if e, ok := tok.(xml.StartElement); ok {
			for _, a := range e.Attr {
				if a.Name.Local == "fill" && e.Name.Local != "polyline" {
					marks++
				}
			}
		}
	}
	if want := points + len(p.Series); marks != want { // one more in the legend for each
		t.Errorf("%s: %d marks, want %d", p.Name, marks, want)
	}
	if p.X == "" || p.Y == "" || p.Title == "" {
		t.Errorf("%s: an axis or the whole has no name", p.Name)
	}
}

// TestSeed: the same seed gives the same counts.
func TestSeed(t *testing.T) {
	c := Config{Seed: 3}.withDefaults()
	for name, f := range map[string]func() any{
		"a job": func() any {
			s, err := c.submit(40, errand{"", 20, time.Second}, true)
			s.cpu = 0
			return []any{s, err}
		},
		"gossip":   func() any { return spreads(c.rng("x", 2), 60, 8) },
		"look-ups": func() any { return simulateKad(c.rng("x", 3), 200) },
		"pieces":   func() any { return c.place(laptops(c.rng("x", 4), 20), 50).held },
	} {
		if a, b := f(), f(); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %v and %v", name, a, b)
		}
	}
}

// TestBidsAreBounded is why workers draw lots: bids do not grow with the pool, every job ends, and without the bound they do
// grow.
func TestBidsAreBounded(t *testing.T) {
	c := Config{Seed: 1}.withDefaults()
	e := errand{"", 1, time.Second}
	for _, n := range []int{10, 400, 1500} {
		all, err := c.submit(n, e, false)
		if err != nil {
			t.Fatal(err)
		}
		asked, err := c.submit(n, e, true)
		if err != nil {
			t.Fatal(err)
		}
		if all.bids < n || asked.bids > 60 || asked.bids < 5 || all.over == 0 || asked.over == 0 {
			t.Errorf("among %d: %+v, and when some are asked %+v", n, all, asked)
		}
	}
}

// TestKademlia: the model finds the nearest peer, asks no more than there are, and few even in a large table.
func TestKademlia(t *testing.T) {
	c := Config{Seed: 1}.withDefaults()
	for _, n := range []int{10, 100, 5000} {
		m := simulateKad(c.rng("kad", n), n)
		if m.right < 0.99 || m.asked > float64(min(n, 60)) || m.asked < 1 {
			t.Errorf("of %d: %+v", n, m)
		}
	}
}

// TestPlacementMovesLeast: nothing moves but what must.
func TestPlacementMovesLeast(t *testing.T) {
	c := Config{Seed: 1, Sizes: []int{20}}.withDefaults()
	s, err := placements(c)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Tables[0].Rows[0]; r.Cells[2] != "1" || r.Cells[3] != "1" {
		t.Errorf("%q", r.Cells)
	}
}

// TestMeasured: what is committed can be read, covers what the page says, and comes back as it was written.
func TestMeasured(t *testing.T) {
	m, err := Load("measured.json")
	if err != nil {
		t.Fatal(err)
	}
	if m.largest().Peers < 30 || len(m.Tables) < 3 || m.Tables[2].Peers < 100 || m.Machine == "" {
		t.Errorf("%+v", m)
	}
	file := filepath.Join(t.TempDir(), "m.json")
	if err := m.Save(file); err != nil {
		t.Fatal(err)
	}
	if again, err := Load(file); err != nil || !reflect.DeepEqual(again, m) {
		t.Errorf("%+v came back as %+v: %v", m, again, err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("nothing was read")
	}
}

func TestFigures(t *testing.T) {
	for want, got := range map[string]string{
		"1,234,567": count(1234567), "12.3": count(12.34), "1.5": count(1.5), "0": count(0), "1.2 kB": size(1234), "12 MB": size(12.3e6),
		"340 µs": span(340 * time.Microsecond), "1.5 s": span(1500 * time.Millisecond), "0.4 %": percent(0.0035), "100": count(100),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
