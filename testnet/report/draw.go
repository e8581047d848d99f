package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
)

// The drawing's measures, in units of its view box.
const (
	left    = 90.0
	right   = 20.0
	across  = 1200.0
	strip   = 22.0 // height of the strips on top
	row     = 26.0 // of a peer
	chart   = 120.0
	gap     = 34.0
	jobRow  = 7.0
	ticks   = 10
	shownOf = 4000 // marks of events, at most
)

// drawing is the page's time line.
type drawing struct {
	Width, Height float64
	Body          template.HTML
}

// pen writes SVG. Everything that is not ours goes through text or tip, which escape.
type pen struct {
	b    strings.Builder
	took float64
	y    float64
}

func (p *pen) x(t float64) float64 {
	return left + (across-left-right)*min(max(t/p.took, 0), 1)
}

func (p *pen) rect(class string, from, to, y, height float64, tip string) {
	fmt.Fprintf(&p.b, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f">%s</rect>`,
		class, p.x(from), y, max(p.x(to)-p.x(from), 1), height, title(tip))
}

func (p *pen) text(class string, x, y float64, text string) {
	fmt.Fprintf(&p.b, `<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, template.HTMLEscapeString(text))
}

func (p *pen) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&p.b, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func title(tip string) string { return "<title>" + template.HTMLEscapeString(tip) + "</title>" }

// draw draws the run: steps, the network, peers with what they did, copies, memory and bytes, jobs.
func (r *Report) draw() drawing {
	p := &pen{took: max(r.Took, 0.1)}
	p.axis()
	p.strips(r)
	p.peers(r)
	p.copies(r)
	p.curves(r)
	p.jobs(r)
	// The body is drawn by this package from numbers, class names of its own, and text that was escaped.
	return drawing{across, p.y, template.HTML(p.b.String())}
}

// axis writes the time above.
func (p *pen) axis() {
	step := math.Pow(10, math.Floor(math.Log10(p.took/ticks)))
	for _, m := range []float64{1, 2, 5, 10} {
		if p.took/(step*m) <= ticks {
			step *= m
			break
		}
	}
	for t := 0.0; t <= p.took; t += step {
		p.text("axis", p.x(t), 12, fmt.Sprintf("%g s", math.Round(t*10)/10))
		fmt.Fprintf(&p.b, `<line class="grid" x1="%.1f" y1="16" x2="%.1f" y2="100%%"/>`, p.x(t), p.x(t))
	}
	p.y = 22
}

func (p *pen) strips(r *Report) {
	p.text("label", 4, p.y+15, "steps")
	for i, s := range r.Stages {
		class := []string{"stage", "stage odd"}[i%2]
		tip := fmt.Sprintf("%s\n%.1f s to %.1f s", s.Text, s.From, s.To)
		switch {
		case s.Err != "":
			class, tip = "stage bad", tip+"\nfailed: "+s.Err
		case s.Skipped != "":
			class, tip = "stage skipped", tip+"\nskipped: "+s.Skipped
		}
		p.rect(class, s.From, s.To, p.y, strip-4, tip)
	}
	p.y += strip
	if len(r.Spans) > 0 {
		p.text("label", 4, p.y+15, "network")
		for _, s := range r.Spans {
			p.rect("span "+classOf(s.Kind), s.From, s.To, p.y, strip-4, fmt.Sprintf("%s\n%.1f s to %.1f s", s.Text, s.From, s.To))
		}
		p.y += strip
	}
	p.y += 8
}

// classOf keeps a class to letters, whatever a report says.
func classOf(word string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' {
			return c
		}
		return -1
	}, word)
}

// lived are the kinds of events that show in a peer's life itself, or are about it without its doing anything.
var lived = []string{"kill", "start", "pause", "resume", "stop", "expect"}

func (p *pen) peers(r *Report) {
	marks := 0
	for i, peer := range r.Peers {
		p.text("label", 4, p.y+16, peer.Name)
		p.line("base", left, p.y+row-6, across-right, p.y+row-6)
		for _, l := range peer.Lives {
			tip := fmt.Sprintf("%s: %s from %.1f s to %.1f s", peer.Name, l.State, l.From, l.To)
			if l.End != "" {
				tip += ", then " + l.End
			}
			p.rect("life "+classOf(l.State), l.From, l.To, p.y+4, row-10, tip)
			switch l.End {
			case "killed", "crashed":
				fmt.Fprintf(&p.b, `<path class="end %s" d="M%.1f %.1fl8 8m0 -8l-8 8">%s</path>`, classOf(l.End), p.x(l.To)-4, p.y+5, title(tip))
			}
		}
		for _, e := range r.Events {
			if !slices.Contains(e.Peers, i) || marks >= shownOf || slices.Contains(lived, e.Kind) {
				continue
			}
			marks++
			class, tip := "event "+classOf(e.Kind), fmt.Sprintf("%.1f s to %.1f s: %s", e.From, e.To, e.Text)
			if e.Err != "" {
				class, tip = class+" bad", tip+"\n"+e.Err
			}
			p.rect(class, e.From, e.To, p.y+8, row-18, tip)
		}
		p.y += row
	}
	p.y += gap / 2
}

// states are the classes of safety, best first; a chart stacks them.
var states = []string{"safe", "short", "single", "asleep", "lost"}

func (p *pen) copies(r *Report) {
	top := int64(0)
	for _, s := range r.Samples {
		total := int64(0)
		for _, n := range s.Copies {
			total += n
		}
		top = max(top, total)
	}
	if top == 0 {
		return
	}
	p.text("label", 4, p.y+12, "copies")
	p.text("small", 4, p.y+26, Bytes(top))
	p.line("base", left, p.y+chart, across-right, p.y+chart)
	for i, s := range r.Samples {
		to := p.took
		if i+1 < len(r.Samples) {
			to = r.Samples[i+1].At
		}
		y := p.y + chart
		for _, state := range states {
			n := s.Copies[state]
			if n == 0 {
				continue
			}
			h := chart * float64(n) / float64(top)
			y -= h
			p.rect("copy "+state, s.At, to, y, h, fmt.Sprintf("%.1f s: %s %s", s.At, Bytes(n), state))
		}
	}
	p.y += chart + gap/2
}

// curves draws memory, and bytes on the network for each second.
func (p *pen) curves(r *Report) {
	p.curve("memory", r.Samples, func(i int) float64 { return float64(r.Samples[i].RSS) }, func(v float64) string { return Bytes(int64(v)) })
	p.curve("network", r.Samples, func(i int) float64 {
		if i == 0 || r.Samples[i].At <= r.Samples[i-1].At {
			return 0
		}
		return float64(r.Samples[i].Sent-r.Samples[i-1].Sent) / (r.Samples[i].At - r.Samples[i-1].At)
	}, func(v float64) string { return Bytes(int64(v)) + "/s" })
}

func (p *pen) curve(name string, samples []Sample, value func(int) float64, text func(float64) string) {
	top := 0.0
	for i := range samples {
		top = max(top, value(i))
	}
	if top == 0 {
		return
	}
	const height = chart / 2
	p.text("label", 4, p.y+12, name)
	p.text("small", 4, p.y+26, text(top))
	p.line("base", left, p.y+height, across-right, p.y+height)
	var points []string
	for i, s := range samples {
		points = append(points, fmt.Sprintf("%.1f,%.1f", p.x(s.At), p.y+height*(1-value(i)/top)))
	}
	fmt.Fprintf(&p.b, `<polyline class="curve %s" points="%s"/>`, name, strings.Join(points, " "))
	p.y += height + gap/2
}

// jobs draws each job's tasks with their attempts, a thin row for each task.
func (p *pen) jobs(r *Report) {
	for _, j := range r.Jobs {
		rows := min(j.Tasks, 60)
		p.text("label", 4, p.y+12, j.Name)
		p.text("small", 4, p.y+26, fmt.Sprintf("%d tasks", j.Tasks))
		done := j.Done
		if done == 0 {
			done = r.Took
		}
		p.rect("job", j.Submitted, done, p.y, float64(rows)*jobRow+2, fmt.Sprintf("%s: %d tasks, %.1f s to %.1f s", j.Name, j.Tasks, j.Submitted, done))
		for _, a := range j.Attempts {
			name := "?"
			if a.Peer >= 0 && a.Peer < len(r.Peers) {
				name = r.Peers[a.Peer].Name
			}
			y := p.y + 1 + float64(a.Task*rows/max(j.Tasks, 1))*jobRow
			p.rect("attempt "+classOf(a.End), a.From, a.To, y, jobRow-1, fmt.Sprintf("task %d on %s, %.1f s to %.1f s: %s", a.Task, name, a.From, a.To, a.End))
		}
		p.y += max(float64(rows)*jobRow, 26) + gap/2
	}
}
