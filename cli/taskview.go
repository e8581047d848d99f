package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/shoal-os/shoal/node/api/client"
)

// taskView shows how a job goes on: a bar on a terminal, plain lines elsewhere. It also writes what is to be seen beside the
// bar, when both are on one screen.
type taskView struct {
	app   *app
	label string
	begun time.Time

	progress *mpb.Progress // nil where there is no terminal
	bar      *mpb.Bar
	last     time.Time // of the plain lines

	mu   sync.Mutex
	job  client.Job
	done int // tasks that were closed, as the watch told
}

func (a *app) newTaskView(label string) *taskView {
	v := &taskView{app: a, label: cut(clean(label), 28), begun: time.Now()}
	if !a.terminal {
		return v
	}
	v.progress = mpb.New(mpb.WithOutput(a.err), mpb.WithRefreshRate(barInterval), mpb.WithAutoRefresh())
	filler := mpb.BarStyle().Lbound("▕").Filler("█").Tip("█").Padding("░").Rbound("▏").Build()
	v.bar = v.progress.MustAdd(0, filler, mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return "\r" + v.label + "  " + v.head() + " " })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + strings.Join(v.facts(), "  ") })),
	)
	return v
}

// update takes how the job is, and how many of its tasks are known to be closed.
func (v *taskView) update(j *client.Job, closed int) {
	v.mu.Lock()
	if j != nil {
		v.job = *j
	}
	v.done = max(closed, v.done)
	total, done := v.job.Tasks, v.done
	v.mu.Unlock()
	if v.bar != nil {
		v.bar.SetTotal(int64(max(total, done+1)), false)
		v.bar.SetCurrent(int64(done))
		return
	}
	if now := time.Now(); now.Sub(v.begun) >= quietTime && now.Sub(v.last) >= lineInterval {
		v.last = now
		v.app.notef("%s: %s, %s", v.label, v.head(), strings.Join(v.facts(), ", "))
	}
}

// head is how far the job is.
func (v *taskView) head() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.job.Tasks == 0 {
		return "starting " + durationText(time.Since(v.begun))
	}
	return fmt.Sprintf("%d of %d tasks (%d %%)", v.done, v.job.Tasks, v.done*100/v.job.Tasks)
}

// facts are what else is worth seeing.
func (v *taskView) facts() (out []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	j := v.job
	rate := j.Rate
	if took := time.Since(v.begun).Seconds(); rate == 0 && took > 1 {
		rate = float64(v.done) / took
	}
	if rate > 0 {
		out = append(out, taskRate(rate))
		if left := float64(j.Tasks-v.done) / rate; left < 99*24*3600 && v.done < j.Tasks {
			out = append(out, durationText(time.Duration(left*float64(time.Second)))+" left")
		}
	}
	out = append(out, fmt.Sprintf("%d running on %s", j.Running, plural(j.Workers, "peer")))
	if j.Retries > 0 {
		out = append(out, fmt.Sprintf("%d again", j.Retries))
	}
	if j.Failed > 0 {
		out = append(out, v.app.paint(red, fmt.Sprintf("%d failed", j.Failed)))
	}
	return out
}

// taskRate is tasks a second, or a minute if they are slow.
func taskRate(perSecond float64) string {
	switch {
	case perSecond >= 10:
		return fmt.Sprintf("%.0f/s", perSecond)
	case perSecond >= 1:
		return fmt.Sprintf("%.1f/s", perSecond)
	}
	return fmt.Sprintf("%.1f/min", perSecond*60)
}

// Write shows lines above the bar.
func (v *taskView) Write(p []byte) (int, error) {
	if v.progress == nil {
		return v.app.err.Write(p)
	}
	return v.progress.Write(p)
}

// end takes the bar off the screen and returns once the terminal is free.
func (v *taskView) end() {
	if v.bar == nil {
		return
	}
	v.bar.Abort(true)
	v.progress.Wait()
	fmt.Fprint(v.app.err, "\r\x1b[K")
}

// lineWriter passes whole lines on, so that nothing breaks a bar in two. What is left at the end comes with a newline.
type lineWriter struct {
	to   io.Writer
	rest []byte
}

const lineHeld = 64 << 10 // a longer line is cut

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	end := bytes.LastIndexByte(w.rest, '\n') + 1
	if end == 0 && len(w.rest) > lineHeld {
		w.rest = append(w.rest, '\n')
		end = len(w.rest)
	}
	if end == 0 {
		return len(p), nil
	}
	_, err := w.to.Write(w.rest[:end])
	w.rest = append(w.rest[:0], w.rest[end:]...)
	return len(p), err
}

func (w *lineWriter) flush() error {
	if len(w.rest) == 0 {
		return nil
	}
	_, err := w.Write([]byte{'\n'})
	return err
}
