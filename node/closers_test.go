package node

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPartsThatAreLate: each part is closed after those that use it, one that is late is named, and one that never ends
// holds up the rest only if something on the disk depends on it.
func TestPartsThatAreLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := closers{log: slog.New(slog.NewTextHandler(&log, nil))}
		var order []string
		takes := func(name string, d time.Duration, err error) func() error {
			return func() error { <-time.After(d); order = append(order, name); return err }
		}
		stuck := make(chan struct{})
		defer close(stuck)
		c.add("home", takes("home", 0, nil))
		c.addLoose("host", func() error { <-stuck; return nil })
		c.add("pieces", takes("pieces", time.Minute, errors.New("disk full")))
		c.addLoose("dht", takes("dht", 6*time.Second, nil))
		c.add("api", takes("api", time.Second, nil))
		began := time.Now()
		err := c.close()
		if took, want := time.Since(began), 1*time.Second+6*time.Second+time.Minute+looseMost; took != want {
			t.Errorf("it took %v, want %v", took, want)
		}
		if got := strings.Join(order, " "); got != "api dht pieces home" {
			t.Errorf("closed in the order %q", got)
		}
		if err == nil || err.Error() != "close pieces: disk full\nclose host: it did not end within 15s" {
			t.Errorf("the error is %q", err)
		}
		for _, want := range []string{"part=dht for=5s", "part=dht after=6s", "part=pieces after=1m0s", "part=host for=5s"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%q is not in the log:\n%s", want, log.String())
			}
		}
		if strings.Contains(log.String(), "api") || strings.Contains(log.String(), "home") {
			t.Errorf("parts that were in time are in the log:\n%s", log.String())
		}
	})
}
