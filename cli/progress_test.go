package cli

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

// screen is a writer that a bar draws on from a goroutine of its own.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func TestBar(t *testing.T) {
	var out screen
	v := (&app{err: &out, terminal: true}).newView("photos\x1b[2J")
	v.update(client.Progress{Phase: "finding", Total: -1})
	if !eventually(func() bool { return strings.Contains(out.String(), "looking for peers") }) {
		t.Error("no word of finding")
	}
	v.update(client.Progress{Phase: "fetching", Done: 1 << 20, Total: 4 << 20, Rate: 1 << 20, Peers: 2})
	for _, want := range []string{"photos[2J", " 25 %", "1.0 MiB/4.0 MiB", "1.0 MiB/s", "3s", "2 peers", "█"} {
		if !eventually(func() bool { return strings.Contains(out.String(), want) }) {
			t.Errorf("the bar does not show %q", want)
		}
	}
	v.update(client.Progress{Phase: "fetching", Done: 4 << 20, Total: 4 << 20})
	v.update(client.Progress{Phase: "verifying", Done: 1, Total: 4 << 20}) // a bar may go back
	v.end()
	if !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Error("the bar stays on the screen")
	}
}

func TestPlainLinesAreFew(t *testing.T) {
	var out screen
	var now time.Time
	v := &lines{app: &app{err: &out}, label: "photos", now: func() time.Time { return now }}
	v.update(client.Progress{Phase: "hashing", Total: -1}) // short work is silent
	now = now.Add(quietTime)
	v.update(client.Progress{Phase: "finding", Total: -1})
	for i := range int64(1000) {
		now = now.Add(4 * time.Millisecond)
		v.update(client.Progress{Phase: "fetching", Done: i, Total: 1000, Peers: 1})
	}
	v.update(client.Progress{Phase: "fetching", Note: "a peer lied", Done: 999, Total: 1000, Peers: 1})
	v.end()
	want := "photos: looking for peers\n" +
		"photos: fetching 0 B of 1000 B (0 %), 1 peer\n" +
		"photos: fetching 750 B of 1000 B (75 %), 1 peer\n" +
		"photos: a peer lied\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
}
