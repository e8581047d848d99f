package quorum

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/quorum/wal"
)

const (
	// endedMax is how many dissolved groups are remembered, and endedFor how long, to tell members that were away.
	endedMax = 4096
	endedFor = 30 * 24 * time.Hour
)

// endings remembers the groups that were dissolved. It is safe for concurrent use.
type endings struct {
	mu   sync.Mutex
	list []ending // oldest first
}

type ending struct {
	id GroupID
	at time.Time
}

func (x *endings) has(id GroupID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.ContainsFunc(x.list, func(e ending) bool { return e.id == id })
}

// add remembers a group and returns the record that makes it last.
func (x *endings) add(id GroupID) wal.Record {
	x.mu.Lock()
	x.list = append(x.list, ending{id, time.Now()})
	old := time.Now().Add(-endedFor)
	x.list = slices.DeleteFunc(x.list, func(e ending) bool { return e.at.Before(old) })
	x.list = x.list[max(0, len(x.list)-endedMax):]
	x.mu.Unlock()
	return x.record()
}

func (x *endings) record() wal.Record {
	x.mu.Lock()
	defer x.mu.Unlock()
	var buf []byte
	for _, e := range x.list {
		buf = append(buf, e.id[:]...)
		buf = binary.BigEndian.AppendUint64(buf, uint64(e.at.Unix()))
	}
	return wal.Record{Kind: wal.Whole, Data: buf}
}

func (x *endings) load(data []byte) error {
	const size = 40
	if len(data)%size != 0 || len(data) > size*endedMax {
		return errors.New("malformed list of dissolved groups")
	}
	x.list = nil
	for ; len(data) > 0; data = data[size:] {
		e := ending{at: time.Unix(int64(binary.BigEndian.Uint64(data[32:size])), 0)}
		copy(e.id[:], data)
		x.list = append(x.list, e)
	}
	return nil
}
