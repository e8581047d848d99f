package market

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

// An announcement reaches every member, and each whose cores are idle would look at the job, fetch its program, open a
// stream and stand by: in a pool of ten thousand, ten thousand for a task of a second, of whom the leader can keep a
// thousand. So the leader says how many it needs, and each worker draws a lot, by a hash of the job and itself, that says
// whether it is among them. Nobody has to know who the others are. While tasks stay open more are asked with each
// announcement, so that the few that fit a rare need are found by the fourth or fifth. In a pool of no more members than
// crowdMin nothing changes.
const (
	crowdMin  = 16 // workers that are asked at first for the smallest job, so that there is a choice of fits …
	crowdEach = 2  // … and so many more for each open task
	crowdGrow = 4  // by which more are asked with each announcement that left tasks open
	// crowdMost is how many are wanted to stand by at most: the rest of what the leader keeps is for those who hold something
	// from an earlier leader, and for lots that fall unevenly.
	crowdMost = workersMax * 3 / 4
)

// widen decides how many workers the next announcement asks: crowdGrow times as many as the last, unless those who came
// of the last say that fewer will fill the leader's room.
func (s *Steward) widen() {
	if s.crowd == 0 {
		s.crowd = uint32(min(crowdMin+crowdEach*s.open(), crowdMost))
		return
	}
	standing := 0
	for _, w := range s.order {
		if w.here {
			standing++
		}
	}
	room := uint64(s.crowd) * crowdMost / uint64(max(1, standing))
	s.crowd = uint32(min(max(uint64(s.crowd), min(crowdGrow*uint64(s.crowd), room)), math.MaxUint32))
}

// drawLot is a worker's lot for a job: evenly spread, and another for each job.
func drawLot(id job.ID, self peer.ID) uint32 {
	sum := sha256.Sum256(append(id[:], self...))
	return binary.BigEndian.Uint32(sum[:])
}

// invited reports whether the last announcement asks this worker to bid. Who submitted the job, or keeps its log, always
// may: the program is here, or a message away.
func (w *Worker) invited(p *pursuit) bool {
	return p.ad.Crowd == 0 || w.lends.Peers <= 0 ||
		uint64(p.draw)*uint64(w.lends.Peers)>>32 < uint64(p.ad.Crowd) ||
		p.ad.Submitter == w.self || slices.Contains(p.ad.Stewards, w.self)
}
