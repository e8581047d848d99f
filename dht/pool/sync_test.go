package pool

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
)

// lone is a pool without a network, of whose members as many as asked for are known, with links that are up.
func lone(t *testing.T, members int) (p *Pool, boot *time.Duration) {
	t.Helper()
	self, began := newIdentity(t, "anna"), time.Now()
	st, err := found(self, began)
	if err != nil {
		t.Fatal(err)
	}
	boot = new(time.Duration)
	*boot = time.Hour
	p = &Pool{
		cfg: Config{Identity: self}, id: st.origin.ID(), state: st, links: make(map[peer.ID]*link),
		clock: clock{wall: func() time.Time { return began }, boot: func() time.Duration { return *boot }},
	}
	for i := range members {
		id := newIdentity(t, "member").ID
		c := newCertificate(p.id, id, fmt.Sprint("member ", i), ident.RoleMember, 1, began)
		rec, err := ident.IssueCertificate(self.Key, c)
		if err != nil {
			t.Fatal(err)
		}
		st.records = append(st.records, rec)
		p.links[id] = &link{peer: id, out: make(chan *pb.Say, linkQueue), up: true}
	}
	p.begin()
	return p, boot
}

// TestAllRecordsGoToFew: while a pool grows, all members differ from all. A member that sent all its records to each whose
// digest differs made them check the square of the members' number every ten seconds, and a pool in one machine stopped at
// about the 45th.
func TestAllRecordsGoToFew(t *testing.T) {
	p, boot := lone(t, 50)
	sent := make(map[peer.ID]int)
	beats := func(times int) {
		for range times {
			for id, l := range p.links {
				p.compare(l, &pb.Say{Digest: make([]byte, digestSize), Secret: 1})
				for ; len(l.out) > 0; <-l.out {
					sent[id]++
				}
			}
			*boot += roster.BeatEvery
		}
	}
	total := func() (n int) {
		for _, s := range sent {
			n += s
		}
		return n
	}
	beats(5) // ten seconds
	if n := total(); n != resyncFew {
		t.Errorf("in %v %d members are sent all records, want %d", resyncAgain, n, resyncFew)
	}
	beats(5 * 20)
	if n := total(); n != 21*resyncFew || len(sent) < len(p.links)/2 {
		t.Errorf("in 21 times as long %d of %d members are sent them %d times, want most of them and %d times", len(sent), len(p.links), n, 21*resyncFew)
	}
}

// TestOneThatStaysDifferentIsLeftAlone: whom all records do not bring into step is sent them less and less often, and at
// once again after it was in step.
func TestOneThatStaysDifferentIsLeftAlone(t *testing.T) {
	p, boot := lone(t, 1)
	beat := func(l *link, digest []byte) int {
		p.compare(l, &pb.Say{Digest: digest, Secret: 1})
		*boot += roster.BeatEvery
		n := len(l.out)
		for range n {
			<-l.out
		}
		return n
	}
	own := p.view().Digest()
	for _, l := range p.links {
		var gaps []time.Duration
		last := *boot
		for len(gaps) < 9 {
			if at := *boot; beat(l, make([]byte, digestSize)) > 0 {
				gaps, last = append(gaps, at-last), at
			}
		}
		for i, want := range []time.Duration{2, 10, 20, 40, 80, 160, 300, 300, 300} {
			if got := gaps[i]; got != want*time.Second {
				t.Errorf("sending %d comes %v after the one before, want %v", i, got, want*time.Second)
			}
		}
		beat(l, own[:digestSize])
		if beat(l, make([]byte, digestSize)) != 0 || beat(l, make([]byte, digestSize)) != 1 {
			t.Error("after it was in step it is not sent them with the second heartbeat that differs")
		}
	}
}

// TestWhatIsHeldIsNotCheckedAgain: members are sent what they know all the time, and a signature takes a tenth of a
// millisecond to check.
func TestWhatIsHeldIsNotCheckedAgain(t *testing.T) {
	p, _ := lone(t, 50)
	var raws [][]byte
	for _, rec := range p.view().Records() {
		raws = append(raws, rec.Raw())
	}
	if len(raws) != 52 { // the founder's certificate and notice are there too
		t.Fatalf("%d records", len(raws))
	}
	if recs := p.newRecords(raws); len(recs) != 0 {
		t.Errorf("%d of %d records that are held are looked at again", len(recs), len(raws))
	}
	other, _ := lone(t, 1)
	for _, rec := range other.view().Records() {
		raws = append(raws, rec.Raw())
	}
	damaged := append([]byte(nil), raws[len(raws)-1]...)
	damaged[len(damaged)-1] ^= 1
	if recs := p.newRecords(append(raws, damaged)); len(recs) != 3 {
		t.Errorf("of three records that are not held, and one that is damaged, %d are new", len(recs))
	}
}
