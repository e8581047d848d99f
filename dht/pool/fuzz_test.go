package pool

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
)

// target is a pool of one on loopback, with an open invitation, for the fuzzers to talk to.
func target(f *testing.F) (*Pool, ident.Ticket) {
	f.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	self := ident.Identity{Key: key, ID: id, Name: "anna"}
	h, err := host.New(host.Config{Identity: self, Listen: []string{loopback}})
	if err != nil {
		f.Fatal(err)
	}
	p, err := Open(Config{Home: f.TempDir(), Identity: self, Host: h})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _, _ = p.Close(), h.Close() })
	t, err := p.Invite(f.Context(), InviteOptions{})
	if err != nil {
		f.Fatal(err)
	}
	return p, t
}

func marshal(f *testing.F, m proto.Message) []byte {
	f.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	return raw
}

// FuzzBegin has a stranger open the handshake with anything, and prove with anything: nobody gets in.
func FuzzBegin(f *testing.F) {
	p, t := target(f)
	joiner := newIdentity(f, "joiner").ID
	id := t.Secret.ID()
	f.Add(marshal(f, &pb.Begin{Pool: t.Pool[:], Ticket: id[:], Nonce: make([]byte, joinNonce), Name: "ben"}), make([]byte, 32))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, raw, proof []byte) {
		var m pb.Begin
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		tr, inv, refusal := p.door.begin(t.Context(), joiner, &m)
		if refusal == nil {
			if w, refusal := p.door.decide(t.Context(), tr, inv, proof); w != nil || refusal == nil {
				t.Error("let in without the secret")
			}
		}
	})
}

// FuzzWelcome has an inviter with bad intent answer with anything.
func FuzzWelcome(f *testing.F) {
	p, t := target(f)
	f.Add(marshal(f, p.welcomeFor(p.cfg.Identity.ID)))
	f.Add([]byte{})
	f.Fuzz(func(tt *testing.T, raw []byte) {
		var m pb.Welcome
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		st, _, err := p.accept(&m, t, "")
		if err == nil && (st.origin.ID() != t.Pool || len(st.secrets) == 0) {
			tt.Errorf("%+v", st)
		}
	})
}

// FuzzSay has a member say anything: it can change neither the membership nor the secret.
func FuzzSay(f *testing.F) {
	p, _ := target(f)
	secret := p.Blind(nil)[0]
	f.Add(marshal(f, &pb.Say{
		Digest: make([]byte, 8), Secret: 1, Lends: &pb.Lends{Cores: 8, Version: "1"}, Addrs: [][]byte{{4, 127, 0, 0, 1, 6, 15, 160}},
		Records: [][]byte{p.view().Records()[0].Raw()}, Secrets: []*pb.Secret{{Number: 2, Key: make([]byte, 32)}},
	}))
	f.Add(marshal(f, &pb.Say{Bye: true}))
	from := newIdentity(f, "ben").ID
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m pb.Say
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		recs := parseRecords(m.GetRecords(), roster.RecordsMax)
		if err := p.do(t.Context(), func() { p.heard(from, &m, recs) }); err != nil {
			t.Fatal(err)
		}
		if len(p.Members()) != 1 || p.Blind(nil)[0] != secret {
			t.Errorf("members %v", p.Members())
		}
	})
}

func FuzzVerdict(f *testing.F) {
	f.Add(marshal(f, &pb.Verdict{Reason: uint32(roster.Evicted), Text: "on Monday\x1b[2J"}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m pb.Verdict
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		r := fromVerdict(&m)
		if (r == nil) != (m.GetReason() == 0) {
			t.Errorf("%v from %v", r, &m)
		}
		if r == nil {
			return
		}
		for _, c := range r.Error() + r.Hint() {
			if c < ' ' || c == 0x7f {
				t.Errorf("%q goes to a screen", r.Error())
			}
		}
	})
}

func FuzzState(f *testing.F) {
	p, _ := target(f)
	f.Add(marshal(f, p.state.encode()))
	f.Add([]byte("nonsense"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := decodeState(raw)
		if err != nil {
			return
		}
		again, err := proto.Marshal(s.encode())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(again); err != nil {
			t.Error(err)
		}
	})
}

func FuzzMeetings(f *testing.F) {
	f.Add(int64(1777636800), uint64(1))
	f.Fuzz(func(t *testing.T, at int64, number uint64) {
		at &= 1<<38 - 1
		now := time.Unix(at, 0)
		here := meetings([]secret{{number: number}}, now)
		there := meetings([]secret{{number: number}}, now.Add(5*time.Hour))
		for key := range here {
			if there[key] {
				return
			}
		}
		t.Errorf("two clocks that differ by five hours at %v never meet", now)
	})
}
