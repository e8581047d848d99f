package block

import (
	"fmt"
	"time"
)

// Limit says when a root has been seeded enough, and how far it has come. The
// zero value is never.
type Limit struct {
	Ratio float64       `json:"ratio,omitempty"` // bytes served for each byte of the root; 0: no matter
	Time  time.Duration `json:"time,omitempty"`  // how long to seed; 0: no matter

	Uploaded int64         `json:"uploaded,omitempty"` // bytes served until the record was last written
	Seeded   time.Duration `json:"seeded,omitempty"`   // and how long it had been seeded
}

// Set reports that there is a limit.
func (l Limit) Set() bool { return l.Ratio > 0 || l.Time > 0 }

// Reached reports that a root of so many bytes has been seeded enough.
func (l Limit) Reached(size int64) bool {
	return l.Time > 0 && l.Seeded >= l.Time || l.Ratio > 0 && float64(l.Uploaded) >= l.Ratio*float64(max(size, 1))
}

// Limit returns the root's limit as it was last set.
func (r *Root) Limit() Limit {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.meta.Limit == nil {
		return Limit{}
	}
	return *r.meta.Limit
}

// SetLimit puts a limit, or how far it has come, into the record.
func (r *Root) SetLimit(l Limit) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.meta.Limit = nil; l.Set() {
		r.meta.Limit = &l
	}
	if r.detached {
		return nil
	}
	if err := r.writeMeta(); err != nil {
		return fmt.Errorf("block: record of %s: %w", r.meta.Root, err)
	}
	return nil
}

// SetWeb puts URLs where the root's bytes lie too into the record.
func (r *Root) SetWeb(urls []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meta.Web = urls
	if r.detached {
		return nil
	}
	if err := r.writeMeta(); err != nil {
		return fmt.Errorf("block: record of %s: %w", r.meta.Root, err)
	}
	return nil
}
