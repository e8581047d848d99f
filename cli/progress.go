package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const (
	lineInterval = 3 * time.Second        // between two plain lines of one phase
	quietTime    = time.Second            // what ends sooner needs no lines at all
	barInterval  = 120 * time.Millisecond // between two drawings of a bar
	noteMax      = 40                     // letters of a note beside a bar
)

// view shows progress. update is called from one goroutine; end takes what is
// on the screen away, or leaves it where it is a record.
type view interface {
	update(client.Progress)
	end()
}

// newView returns a bar on a terminal and plain lines elsewhere.
func (a *app) newView(label string) view {
	if a.terminal {
		return newBar(a, clean(label))
	}
	return &lines{app: a, label: clean(label), now: time.Now, begun: time.Now()}
}

// lines is progress as lines of text, for logs and pipes.
type lines struct {
	app   *app
	label string
	now   func() time.Time
	begun time.Time
	last  time.Time
	phase string
	note  string
}

func (l *lines) update(p client.Progress) {
	now := l.now()
	if p.Note != "" && p.Note != l.note {
		l.note = p.Note
		l.app.notef("%s: %s", l.label, clean(p.Note))
	}
	if now.Sub(l.begun) < quietTime || p.Phase == l.phase && now.Sub(l.last) < lineInterval {
		return
	}
	l.phase, l.last = p.Phase, now
	l.app.notef("%s: %s", l.label, strings.Join(facts(p), ", "))
}

func (l *lines) end() {}

// phaseText says what goes on to a person.
func phaseText(p client.Progress) string {
	switch {
	case p.Phase == "finding", p.Phase == "fetching" && p.Peers == 0:
		return "looking for peers"
	case p.Phase == "tree":
		return "reading the list of files"
	default:
		return clean(p.Phase)
	}
}

// facts words progress, most important first.
func facts(p client.Progress) []string {
	out := []string{phaseText(p)}
	switch {
	case p.Total > 0:
		out[0] += fmt.Sprintf(" %s of %s (%d %%)", bytesText(p.Done), bytesText(p.Total), p.Done*100/p.Total)
	case p.Done > 0:
		out[0] += " " + bytesText(p.Done)
	}
	if p.Files > 1 {
		out = append(out, plural(p.Files, "file"))
	}
	if p.Rate > 0 {
		out = append(out, rateText(p.Rate))
	}
	if left := eta(p); left != "" {
		out = append(out, left+" left")
	}
	if p.Phase != "hashing" && p.Peers > 0 {
		out = append(out, plural(p.Peers, "peer"))
	}
	return out
}

// eta is the time left, or "" when it cannot be told.
func eta(p client.Progress) string {
	if p.Rate <= 0 || p.Total <= 0 || p.Done >= p.Total {
		return ""
	}
	seconds := float64(p.Total-p.Done) / p.Rate
	if seconds > 99*24*3600 {
		return ""
	}
	return durationText(time.Duration(seconds * float64(time.Second)))
}

// bar is progress drawn in place on a terminal.
type bar struct {
	progress *mpb.Progress
	bar      *mpb.Bar
	out      io.Writer
	label    string
	started  time.Time

	mu   sync.Mutex
	last client.Progress
}

func newBar(a *app, label string) *bar {
	b := &bar{out: a.err, label: label, started: time.Now(), last: client.Progress{Phase: "starting", Total: -1}}
	b.progress = mpb.New(mpb.WithOutput(a.err), mpb.WithRefreshRate(barInterval), mpb.WithAutoRefresh())
	b.bar = b.progress.MustAdd(0, b.filler(),
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return b.left() })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return b.right() })),
	)
	return b
}

// filler draws the bar itself, or nothing while there is no total to fill up to.
func (b *bar) filler() mpb.BarFiller {
	return mpb.BarStyle().Lbound("▕").Filler("█").Tip("█").Padding("░").Rbound("▏").Build()
}

func (b *bar) update(p client.Progress) {
	b.mu.Lock()
	b.last = p
	b.mu.Unlock()
	b.bar.SetTotal(max(p.Total, p.Done+1), false) // full is drawn, never "complete": end does that
	b.bar.SetCurrent(p.Done)
}

func (b *bar) snapshot() client.Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *bar) left() string {
	p := b.snapshot()
	text := cut(b.label, 28) + "  " + phaseText(p)
	if p.Total <= 0 {
		text += " " + durationText(time.Since(b.started))
	}
	// The carriage return undoes the "^C" that a terminal puts where the cursor
	// waits, which would shift the line and so wrap it.
	return "\r" + text + " "
}

func (b *bar) right() string {
	p := b.snapshot()
	var out []string
	if p.Total > 0 {
		out = append(out, fmt.Sprintf("%3d %%", p.Done*100/p.Total), bytesText(p.Done)+"/"+bytesText(p.Total))
	}
	if p.Rate > 0 {
		out = append(out, rateText(p.Rate))
	}
	if left := eta(p); left != "" {
		out = append(out, left)
	}
	if p.Phase != "hashing" && p.Peers > 0 {
		out = append(out, plural(p.Peers, "peer"))
	}
	if p.Note != "" {
		out = append(out, cut(clean(p.Note), noteMax))
	}
	return " " + strings.Join(out, "  ")
}

// end takes the bar off the screen and returns once the terminal is free.
func (b *bar) end() {
	b.bar.Abort(true)
	b.progress.Wait()
	fmt.Fprint(b.out, "\r\x1b[K")
}

// cut shortens text to a number of letters.
func cut(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most-1]) + "…"
}
