package pool

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/pool/pooltest"
)

// TestNewsIsToldByFew: who makes news tells all; who hears them of a member tells a few others that are there.
func TestNewsIsToldByFew(t *testing.T) {
	w := newIdentity(t, "anna")
	rec, err := ident.IssueAppointment(w.Key, ident.PoolID{1}, w.ID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from peer.ID
		want int
	}{{"", 18}, {"p0", spreadFew}, {"somebody else", spreadFew}} {
		p := &Pool{links: map[peer.ID]*link{}}
		for i := range 20 {
			id := peer.ID(fmt.Sprint("p", i))
			p.links[id] = &link{peer: id, out: make(chan *pb.Say, linkQueue), up: i > 1} // two are down
		}
		p.spread([]ident.Record{rec}, c.from)
		told := 0
		for id, l := range p.links {
			if told += len(l.out); len(l.out) > 0 && (!l.up || id == c.from) {
				t.Errorf("%s is told what %q told", id, c.from)
			}
		}
		if told != c.want {
			t.Errorf("of what %q told, %d are told, want %d", c.from, told, c.want)
		}
	}
}

// countedNames counts what its member writes anew.
type countedNames struct {
	*pooltest.Names
	puts atomic.Int32
}

func (n *countedNames) Put(key string, value []byte) error {
	for _, old := range n.Scan(key) {
		if string(old) == string(value) {
			return nil
		}
	}
	n.puts.Add(1)
	return n.Names.Put(key, value)
}

// TestOneLeavesNewsAmongTheNames: of each join only the inviter writes, not every member that hears of it, nor a member
// whose names are new.
func TestOneLeavesNewsAmongTheNames(t *testing.T) {
	anna := newBox(t, "anna")
	list := []*box{anna}
	all := []*countedNames{{Names: pooltest.NewNames()}}
	anna.pool.UseRecords(all[0])
	for i := range 5 {
		b, n := newBox(t, fmt.Sprint("ben", i)), &countedNames{Names: pooltest.NewNames()}
		b.join(anna, InviteOptions{})
		b.pool.UseRecords(n)                                                                  // which hear of others' only in the end
		if err := b.pool.do(t.Context(), func() { b.pool.due.names = 1 << 62 }); err != nil { // the minute is not to end here
			t.Fatal(err)
		}
		list, all = append(list, b), append(all, n)
	}
	for _, b := range list {
		wait(t, time.Minute, "all know each other", func() bool { return len(b.pool.Members()) == len(list) })
	}
	for _, n := range all[1:] {
		pooltest.Connect(all[0].Names, n.Names)
		found := 0
		for range n.Scan("member/") {
			found++
		}
		if found != len(list) {
			t.Errorf("%d members stand among the names of %d", found, len(list))
		}
	}
	if wrote := all[0].puts.Load(); wrote < int32(len(list)) {
		t.Errorf("the inviter wrote %d names of %d members", wrote, len(list))
	}
	for i, n := range all[1:] {
		if wrote := n.puts.Load(); wrote != 0 {
			t.Errorf("member %d wrote %d names", i+1, wrote)
		}
	}
}
