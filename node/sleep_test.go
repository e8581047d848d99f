package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// scriptedLid is a lid that moves as a test says; it notes what is done with it, in order.
type scriptedLid struct {
	moves   string        // o: it opened, c: it closes; then the system tells nothing any more …
	gone    chan struct{} // … once this is closed; nil: at once
	refuses int           // which lock is refused, from 1; 0: none
	locks   int
	did     *[]string
}

var errScript = errors.New("the script is over")

func (l *scriptedLid) note(format string, args ...any) {
	*l.did = append(*l.did, fmt.Sprintf(format, args...))
}

func (l *scriptedLid) next(ctx context.Context) (bool, error) {
	if l.moves == "" {
		if l.gone != nil {
			select {
			case <-l.gone:
			case <-ctx.Done():
			}
		}
		return false, errScript
	}
	move := l.moves[0]
	l.moves = l.moves[1:]
	return move == 'c', nil
}

type scriptedLock struct {
	lid  *scriptedLid
	open bool
}

func (k *scriptedLock) Close() error {
	if k.open {
		k.lid.note("release")
	}
	k.open = false
	return nil
}

func (l *scriptedLid) hold(context.Context) (io.Closer, error) {
	if l.locks++; l.locks == l.refuses {
		return nil, errScript
	}
	l.note("hold")
	return &scriptedLock{l, true}, nil
}

func (l *scriptedLid) close() { l.note("close") }

func TestWhatAClosingLidCauses(t *testing.T) {
	for _, c := range []struct {
		about   string
		moves   string
		refuses int
		want    string
	}{
		{"a night", "co", 0, "hold, asleep, release, awake, hold, release, close"},
		{"two nights", "coco", 0, "hold, asleep, release, awake, hold, asleep, release, awake, hold, release, close"},
		{"it stays awake after all", "o", 0, "hold, awake, release, hold, release, close"},
		{"it is told twice", "cco", 0, "hold, asleep, release, asleep, awake, hold, release, close"},
		{"the system falls silent while it is closed", "c", 0, "hold, asleep, release, awake, close"},
		{"the system falls silent", "", 0, "hold, release, close"},
		{"no lock is given", "co", 1, "close"},
		{"no lock is given after a night", "co", 2, "hold, asleep, release, awake, close"},
	} {
		var did []string
		w := &lidWatch{log: slog.New(slog.DiscardHandler)}
		w.open = func(context.Context) (lid, error) {
			return &scriptedLid{moves: c.moves, refuses: c.refuses, did: &did}, nil
		}
		w.tell = func(_ context.Context, asleep bool) {
			did = append(did, map[bool]string{true: "asleep", false: "awake"}[asleep])
		}
		if err := w.watch(t.Context()); !errors.Is(err, errScript) {
			t.Errorf("%s: %v", c.about, err)
		}
		if got := strings.Join(did, ", "); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.about, got, c.want)
		}
	}
}

// A lid that cannot be watched is looked for ever more rarely, which the log is told once; one that was watched is looked for soon.
func TestALidIsLookedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		var log strings.Builder
		gone, last := make(chan struct{}), time.Now()
		w := watchLid(func(context.Context) (lid, error) {
			waits, last = append(waits, time.Since(last)/time.Second), time.Now()
			if len(waits) == 12 {
				return &scriptedLid{gone: gone, did: new([]string)}, nil
			}
			return nil, errScript
		}, nil, slog.New(slog.NewTextHandler(&log, nil)))
		told := func() int { synctest.Wait(); return strings.Count(log.String(), "finds out by silence") }

		<-time.After(time.Hour)
		if n := told(); n != 1 || w.problem() != nil {
			t.Errorf("the log was told %d times; %v", n, w.problem())
		}
		last = time.Now()
		close(gone)
		<-time.After(4 * time.Second)
		if n := told(); n != 2 || w.problem() == nil {
			t.Errorf("the log was told %d times; %v", n, w.problem())
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
		if want := []time.Duration{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 1, 2}; !slices.Equal(waits, want) {
			t.Errorf("waits in seconds: %d", waits)
		}
	})
}

func TestASystemWithoutALidIsNotAskedAgain(t *testing.T) {
	asked := 0
	w := watchLid(func(context.Context) (lid, error) { asked++; return nil, errNoLid }, nil, slog.New(slog.DiscardHandler))
	<-w.over
	if err := w.close(); err != nil || asked != 1 || !errors.Is(w.problem(), errNoLid) {
		t.Errorf("asked %d times: %v, %v", asked, w.problem(), err)
	}
}
