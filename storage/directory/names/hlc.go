package names

import (
	"fmt"
	"time"
)

// HLC is a hybrid logical time: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. It orders
// records the way their writers' clocks do, and a writer never gives a lower time than one it has seen (Kulkarni et
// al., "Logical Physical Clocks", 2014).
type HLC uint64

// counterBits is the width of the counter.
const counterBits = 16

// At returns the first hybrid time of t's millisecond. Times before 1970 count as 1970.
func At(t time.Time) HLC { return HLC(max(t.UnixMilli(), 0)) << counterBits }

// Time returns the physical part, to the millisecond.
func (h HLC) Time() time.Time { return time.UnixMilli(int64(h >> counterBits)) }

// String shows the physical part and the counter.
func (h HLC) String() string {
	return fmt.Sprintf("%s+%d", h.Time().UTC().Format("2006-01-02T15:04:05.000Z"), uint16(h))
}
