package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// warnings is a log for a person who is looking: one line a warning, without
// the time. Its handlers share the lock of the first.
type warnings struct {
	mu    *sync.Mutex
	out   io.Writer
	attrs []slog.Attr
}

func newWarnings(out io.Writer) *slog.Logger {
	return slog.New(&warnings{mu: new(sync.Mutex), out: out})
}

// Enabled implements [slog.Handler].
func (*warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements [slog.Handler].
func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	var facts []string
	add := func(a slog.Attr) bool {
		facts = append(facts, a.Key+" "+a.Value.String())
		return true
	}
	for _, a := range w.attrs {
		add(a)
	}
	r.Attrs(add)
	text := r.Message
	if len(facts) > 0 {
		text += " (" + strings.Join(facts, ", ") + ")"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := fmt.Fprintf(w.out, "warning: %s\n", clean(text))
	return err
}

// WithAttrs implements [slog.Handler].
func (w *warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &warnings{mu: w.mu, out: w.out, attrs: append(w.attrs[:len(w.attrs):len(w.attrs)], attrs...)}
}

// WithGroup implements [slog.Handler]. Groups say nothing to a person.
func (w *warnings) WithGroup(string) slog.Handler { return w }
