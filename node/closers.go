package node

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	// partLate is how long a part may take to end before the log names it.
	partLate = 5 * time.Second
	// looseMost is how long a loose part is waited for.
	looseMost = 15 * time.Second
)

// closers are the parts that were opened, closed in reverse. A part that is
// late is named in the log, so that whoever waits for a peer to stop knows what
// it waits for.
type closers struct {
	log   *slog.Logger
	parts []part
}

type part struct {
	name  string
	close func() error
	loose bool
}

func (c *closers) add(name string, f func() error) {
	c.parts = append(c.parts, part{name: name, close: f})
}

// addLoose is add for a part that nothing on the disk depends on: when it does
// not end, those below it are closed all the same.
func (c *closers) addLoose(name string, f func() error) {
	c.parts = append(c.parts, part{name: name, close: f, loose: true})
}

func (c *closers) close() error {
	var errs []error
	for i := len(c.parts) - 1; i >= 0; i-- {
		if err := c.end(c.parts[i]); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", c.parts[i].name, err))
		}
	}
	return errors.Join(errs...)
}

// end closes one part.
func (c *closers) end(p part) error {
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- p.close() }()
	late := time.NewTimer(partLate)
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
		c.log.Warn("a part of the peer is late to stop", "part", p.name, "for", partLate)
	}
	var most <-chan time.Time // never, unless the part is loose
	if p.loose {
		late.Reset(looseMost - partLate)
		most = late.C
	}
	select {
	case err := <-ended:
		c.log.Warn("it stopped", "part", p.name, "after", time.Since(began).Round(time.Millisecond))
		return err
	case <-most:
		return fmt.Errorf("it did not end within %v", looseMost)
	}
}
