package card

import (
	"crypto/ed25519"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

func someone(t testing.TB) peer.ID {
	t.Helper()
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCard(t *testing.T) {
	who := someone(t)
	spec := &job.Spec{
		Name: "n", Submitter: who, Created: time.UnixMilli(1000).UTC(), Retention: time.Hour,
		Command: job.Command{Kind: job.Proc, Path: "ls", Args: []string{"-l", strings.Repeat("é", 200), "\x1b[31m"}},
		Split:   job.Split{Kind: job.Count, Count: 4}, Reduce: &job.Command{},
	}
	ended := time.UnixMilli(5000).UTC()
	for _, c := range []struct {
		p    market.Progress
		want End
	}{
		{market.Progress{Tasks: 5, Done: 4}, NotYet},
		{market.Progress{Tasks: 5, Done: 5, Over: true, Ended: ended}, Done},
		{market.Progress{Tasks: 5, Done: 4, Failed: 1, Over: true, Ended: ended}, Failed},
		{market.Progress{Tasks: 5, Done: 4, Dropped: 1, Canceled: "why", Over: true, Ended: ended}, Canceled},
	} {
		made := Of(job.ID{1}, spec, []peer.ID{who, who, who}, c.p)
		if made.End != c.want || made.Tasks != 5 || len(made.Command) > commandMax || made.Expires.IsZero() != (c.want == NotYet) {
			t.Errorf("%+v", made)
		}
		raw, err := made.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(job.ID{1}, raw)
		if err != nil || !reflect.DeepEqual(got, made) {
			t.Errorf("%+v became %+v, %v", made, got, err)
		}
	}
	if id, err := IDOf(KeyOf(job.ID{3})); err != nil || id != (job.ID{3}) {
		t.Errorf("%v, %v", id, err)
	}
	if _, err := IDOf("job/x"); err == nil {
		t.Error("a bad key was read")
	}
}

func FuzzDecode(f *testing.F) {
	raw, err := Of(job.ID{1}, &job.Spec{Submitter: someone(f)}, nil, market.Progress{}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := Decode(job.ID{1}, raw)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decode(job.ID{1}, again); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%+v became %+v, %v", c, got, err)
		}
	})
}
