package market

import (
	"math"
	"time"

	"github.com/shoal-os/shoal/dht/canon"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/job"
)

// timeMax is the last moment that an entry may name, in milliseconds since 1970, in the year 2243.
const timeMax = 1 << 43

// decoder reads what the ledger's replicas keep.
type decoder struct{ canon.Decoder }

func (d *decoder) lease() Lease {
	return Lease{Task: d.Uint32(), Token: job.Token{Term: d.Uvarint(), Seq: d.Uvarint()}}
}

func (d *decoder) time() time.Time {
	n := d.Uvarint()
	if n > timeMax {
		d.Fail(canon.ErrLimit)
	}
	if d.Err != nil || n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(n)).UTC()
}

func (d *decoder) duration() time.Duration {
	n := d.Uvarint()
	if n > math.MaxInt64/uint64(time.Microsecond) {
		d.Fail(canon.ErrLimit)
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

func (d *decoder) cid() chunk.CID {
	raw := d.Fixed(len(chunk.CID{}.Sum))
	if raw == nil {
		return chunk.CID{}
	}
	return chunk.CID{Codec: chunk.Raw, Sum: [32]byte(raw)}
}
