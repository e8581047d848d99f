package repair

import (
	"strings"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

const (
	// lendsPrefix and a peer's id are the key of the record that says what it offers.
	lendsPrefix = "lends/"
	// offerText bounds the names of owners and sites, in bytes.
	offerText = 64
	// spaceStep is the share of what was published, one part in so many, by which the space must change to be published
	// anew: every change moves pieces.
	spaceStep = 10
)

// offers is what this peer knows of its own record.
type offers struct {
	overwritten atomic.Bool // another author's record stands there
}

// publishOffer writes what this peer lends, if that changed by more than a little.
func (r *Repair) publishOffer() {
	o := r.cfg.Lends()
	now := placement.Member{
		ID: r.cfg.Self, Space: o.Space, Owner: clip(o.Owner), Site: clip(o.Site), Anchor: o.Anchor, Uptime: r.uptime.class(),
	}
	if o.Anchor {
		now.Uptime = 100
	}
	was, ok := r.readOffers()[r.cfg.Self]
	if d := max(was.Space, now.Space) - min(was.Space, now.Space); d < was.Space/spaceStep && now.Space > 0 {
		now.Space = was.Space
	}
	if ok && was == now && !r.offers.overwritten.Load() || !ok && now.Space == 0 {
		return
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.Lends{
		Space: now.Space, Uptime: uint32(now.Uptime), Owner: now.Owner, Site: now.Site, Anchor: now.Anchor,
	})
	if err == nil {
		err = r.cfg.Records.Put(lendsPrefix+r.cfg.Self.String(), value)
	}
	if err != nil {
		r.log.Warn("what this peer lends is not published", "err", err)
		return
	}
	r.offers.overwritten.Store(false)
}

func clip(s string) string { return wire.CleanText(s[:min(len(s), offerText)]) }

// readOffers reads what members lend. A record that somebody else wrote counts for nothing.
func (r *Repair) readOffers() map[peer.ID]placement.Member {
	out := map[peer.ID]placement.Member{}
	for rec := range r.cfg.Records.Scan(lendsPrefix) {
		if m, ok := readOffer(rec); ok {
			out[m.ID] = m
		}
	}
	return out
}

// OfferOf returns what a member says that it lends, how much of the time it is there, and whose it is; ok is false if it says nothing.
func (r *Repair) OfferOf(id peer.ID) (m placement.Member, ok bool) {
	for rec := range r.cfg.Records.Scan(lendsPrefix + id.String()) {
		if m, ok = readOffer(rec); ok && m.ID == id {
			return m, true
		}
	}
	return placement.Member{}, false
}

func readOffer(rec *directory.Record) (m placement.Member, ok bool) {
	var l pb.Lends
	if strings.TrimPrefix(rec.Key, lendsPrefix) != rec.Author.String() || proto.Unmarshal(rec.Value, &l) != nil {
		return m, false
	}
	return placement.Member{
		ID: rec.Author, Space: l.GetSpace(), Uptime: uint8(min(l.GetUptime(), 100)),
		Owner: clip(l.GetOwner()), Site: clip(l.GetSite()), Anchor: l.GetAnchor(),
	}, true
}
