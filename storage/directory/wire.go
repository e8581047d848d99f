package directory

import (
	"time"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/directory/names"
)

// helloToWire puts a hello into the schema.
func helloToWire(h *names.Hello) *Hello {
	return &Hello{
		Digest:  h.Digest[:],
		Records: uint64(h.Len),
		ClockMs: h.Clock.Raw.UnixMilli(),
		PoolMs:  h.Clock.Pool.UnixMilli(),
		Voices:  uint32(h.Clock.Voices),
		Fresh:   h.Fresh,
		Stale:   h.Stale,
	}
}

// timeMax bounds the times that others may claim, in milliseconds since 1970: beyond it, in the year 2243, nanoseconds
// since 1970 no longer fit into 63 bits.
const timeMax = 1 << 43

// helloFromWire reads a hello; nothing in it is believed yet.
func helloFromWire(m *Hello) (names.Hello, error) {
	h := names.Hello{
		Len: int(min(m.Records, names.RecordsMax)),
		Clock: names.Reading{
			Raw: time.UnixMilli(m.ClockMs), Pool: time.UnixMilli(m.PoolMs),
			Voices: int(min(m.Voices, 1<<16)),
		},
		Fresh: m.Fresh,
		Stale: m.Stale,
	}
	var ok bool
	if h.Digest, ok = digestFrom(m.Digest); !ok {
		return h, wire.Errorf(wire.Malformed, "a digest of %d bytes", len(m.Digest))
	}
	for _, ms := range []int64{m.ClockMs, m.PoolMs} {
		if ms < -timeMax || ms > timeMax {
			return h, wire.Errorf(wire.Malformed, "a clock at %d ms", ms)
		}
	}
	return h, nil
}

func digestFrom(data []byte) (d Digest, ok bool) {
	if len(data) != len(d) {
		return d, false
	}
	copy(d[:], data)
	return d, true
}

// turnToWire puts a turn into the schema.
func turnToWire(t *names.Turn) *Turn {
	out := &Turn{Ranges: t.Ranges, Want: t.Want}
	for _, r := range t.Records {
		out.Records = append(out.Records, r.Append(nil))
	}
	return out
}
