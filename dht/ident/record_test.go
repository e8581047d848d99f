package ident

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// someone is a peer with a key that follows from a number, so that fuzz corpora stay valid.
func someone(t testing.TB, n byte) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{n}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// samples returns one record of each kind, all of one pool.
func samples(t testing.TB) []Record {
	t.Helper()
	admin, adminID := someone(t, 1)
	_, other := someone(t, 2)
	_, third := someone(t, 3)
	pool := Origin{Genesis: adminID}.ID()
	c := Certificate{Peer: other, Name: "ben", Role: RoleMember, Serial: 7, NotBefore: noon, NotAfter: noon.Add(CertificateLife)}
	c.Pool = pool
	keep := []peer.ID{other, third}
	slices.Sort(keep)
	var out []Record
	add := func(r Record, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	add(IssueCertificate(admin, c))
	add(IssueAppointment(admin, pool, other, noon))
	add(IssueRevocation(admin, pool, adminID, keep, noon))
	add(IssueRevocation(admin, pool, other, nil, noon))
	add(IssueDeparture(admin, pool, 300, noon))
	add(IssueNotice(admin, pool, 2, [32]byte{9}, noon))
	return out
}

func TestRecordsRoundTrip(t *testing.T) {
	_, admin := someone(t, 1)
	keys := make(map[string]bool)
	for _, r := range samples(t) {
		again, err := ParseRecord(r.Raw())
		if err != nil {
			t.Fatalf("%T: %v", r, err)
		}
		if again.Hash() != r.Hash() || again.Key() != r.Key() || again.In() != r.In() || again.By() != admin || again.About() != r.About() {
			t.Errorf("%T changed on the way: %+v, %+v", r, r, again)
		}
		if keys[r.Key()] {
			t.Errorf("two records under %s", r.Key())
		}
		keys[r.Key()] = true
	}
	c := samples(t)[0].(Certificate)
	if c.Name != "ben" || c.Serial != 7 || c.Role != RoleMember || !c.NotBefore.Equal(noon) || c.HalfLife().Sub(noon) != CertificateLife/2 {
		t.Errorf("%+v", c)
	}
}

// One byte changed anywhere, or missing, or too many, and the record is refused.
func TestRecordsCannotBeAltered(t *testing.T) {
	for _, r := range samples(t) {
		raw := r.Raw()
		for i := range raw {
			bad := bytes.Clone(raw)
			bad[i] ^= 1
			if _, err := ParseRecord(bad); err == nil {
				t.Fatalf("%T: byte %d of %d altered and accepted", r, i, len(raw))
			}
			if _, err := ParseRecord(raw[:i]); err == nil {
				t.Fatalf("%T: accepted with %d of %d bytes", r, i, len(raw))
			}
		}
		if _, err := ParseRecord(append(bytes.Clone(raw), 0)); err == nil {
			t.Errorf("%T: accepted with a byte to spare", r)
		}
	}
}

// An Ed25519 signature whose scalar is written in another way would be a second encoding of the same record, by which a
// list of refused records could be slipped past.
func TestSignaturesAreNotMalleable(t *testing.T) {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	raw := bytes.Clone(samples(t)[0].Raw())
	scalar := raw[len(raw)-ed25519.SignatureSize/2:]
	slices.Reverse(scalar)
	sum := new(big.Int).Add(new(big.Int).SetBytes(scalar), order)
	sum.FillBytes(scalar)
	slices.Reverse(scalar)
	if _, err := ParseRecord(raw); !errors.Is(err, ErrSignature) {
		t.Errorf("a second form of a signature: %v", err)
	}
}

func TestDomainsSeparate(t *testing.T) {
	key, id := someone(t, 1)
	sig, err := Sign(key, "one", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(id, "one", []byte("payload"), sig); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ domain, payload string }{{"two", "payload"}, {"onep", "ayload"}, {"one", "payloae"}, {"", "payload"}} {
		if err := Verify(id, c.domain, []byte(c.payload), sig); !errors.Is(err, ErrSignature) {
			t.Errorf("%q %q: %v", c.domain, c.payload, err)
		}
	}
	if err := Verify("nonsense", "one", nil, sig); err == nil {
		t.Error("a signer that is no peer id")
	}
	// A record of one kind cannot be shown as another: the kind is signed with it.
	raw := samples(t)[1].Raw()
	relabelled := bytes.Replace(raw, []byte(domainAppointment), []byte(domainRevocation), 1)
	if _, err := ParseRecord(relabelled); err == nil {
		t.Error("a record with another label")
	}
}

// What a signer may sign and a reader must still refuse: the signature is right, the content is not.
func TestSignedNonsenseIsRefused(t *testing.T) {
	key, id := someone(t, 1)
	_, low := someone(t, 2)
	pool := Origin{Genesis: id}.ID()
	valid := Certificate{Peer: id, Name: "anna", Role: RoleMember, NotBefore: noon, NotAfter: noon.Add(time.Hour)}
	valid.Pool = pool
	for name, change := range map[string]func(*Certificate){
		"a name with a control character": func(c *Certificate) { c.Name = "a\x1b[2Jb" },
		"no name":                         func(c *Certificate) { c.Name = "" },
		"a long name":                     func(c *Certificate) { c.Name = strings.Repeat("x", NameMax+1) },
		"no role":                         func(c *Certificate) { c.Role = RoleNone },
		"an unknown role":                 func(c *Certificate) { c.Role = RoleAdmin + 1 },
		"no end":                          func(c *Certificate) { c.NotAfter = time.Time{} },
		"an end before its begin":         func(c *Certificate) { c.NotAfter = noon.Add(-time.Hour) },
		"a life too long":                 func(c *Certificate) { c.NotAfter = noon.Add(3 * CertificateLife) },
		"no peer":                         func(c *Certificate) { c.Peer = "" },
	} {
		c := valid
		change(&c)
		if got, err := IssueCertificate(key, c); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, err := IssueCertificate(key, valid); err != nil {
		t.Error(err)
	}
	if _, err := IssueRevocation(key, pool, id, []peer.ID{max(id, low), min(id, low)}, noon); err == nil {
		t.Error("a list out of order")
	}
	if _, err := IssueRevocation(key, pool, id, []peer.ID{low, low}, noon); err == nil {
		t.Error("a list with a double")
	}
	if _, err := Seal(key, Envelope{Domain: "other", Pool: pool, Signer: low, Issued: noon}); !errors.Is(err, ErrSignature) {
		t.Errorf("sealed in the name of another: %v", err)
	}
	if _, err := Seal(key, Envelope{Domain: "other", Pool: pool, Signer: id, Issued: noon, Payload: make([]byte, RecordMax)}); err == nil {
		t.Error("sealed beyond the limit")
	}
	if raw, err := Seal(key, Envelope{Domain: "other", Pool: pool, Signer: id, Issued: noon}); err != nil {
		t.Error(err)
	} else if _, err := ParseRecord(raw); err == nil {
		t.Error("a record of an unknown kind")
	}
}

func TestOrigin(t *testing.T) {
	_, id := someone(t, 1)
	o, err := NewOrigin(id)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewOrigin(id)
	if err != nil || o.ID() == p.ID() {
		t.Errorf("two pools of one peer are the same, %v", err)
	}
	again, err := ParseOrigin(o.Marshal())
	if err != nil || again != o || again.ID() != o.ID() {
		t.Errorf("%+v, %v", again, err)
	}
	id2, err := ParsePoolID(o.ID().String())
	if err != nil || id2 != o.ID() || !id2.Defined() || len(id2.Short()) != 8 {
		t.Errorf("%v, %v", id2, err)
	}
	for _, s := range []string{"", "x", strings.ToUpper(o.ID().String()), o.ID().String() + "a", o.ID().String()[1:]} {
		if _, err := ParsePoolID(s); err == nil {
			t.Errorf("parsed %q", s)
		}
	}
	key, _, err := crypto.GenerateSecp256k1Key(bytes.NewReader(bytes.Repeat([]byte{5}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	other, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewOrigin(other); err == nil {
		t.Error("a first admin whose key is not Ed25519")
	}
}

// A key has one id. The protobuf of a key can be written in other ways, which libp2p reads; such an id would be another peer
// with the same key, whom no eviction names.
func TestAKeyHasOneID(t *testing.T) {
	key, id := someone(t, 1)
	raw, err := key.GetPublic().Raw()
	if err != nil {
		t.Fatal(err)
	}
	backwards := append(append([]byte{0x12, 32}, raw...), 0x08, 0x01) // the fields in the other order
	other := peer.ID(append([]byte{0, byte(len(backwards))}, backwards...))
	if got, err := other.ExtractPublicKey(); err != nil || !got.Equals(key.GetPublic()) || other == id {
		t.Skipf("libp2p does not read it any more: %v", err)
	}
	if _, err := NewOrigin(other); err == nil {
		t.Error("accepted")
	}
}

func TestRoles(t *testing.T) {
	for _, r := range []Role{RoleTerminal, RoleMember, RoleAdmin} {
		if got, err := ParseRole(r.String()); err != nil || got != r || !r.Valid() {
			t.Errorf("%v: %v, %v", r, got, err)
		}
	}
	for _, s := range []string{"", "none", "root"} {
		if _, err := ParseRole(s); err == nil {
			t.Errorf("parsed %q", s)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, r := range samples(f) {
		f.Add(r.Raw())
		f.Add(r.Raw()[:len(r.Raw())/2])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseRecord(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Raw(), raw) || r.By() == "" || r.About() == "" || r.Key() == "" {
			t.Errorf("%+v", r)
		}
	})
}

// FuzzPayload has the content fuzzed behind a signature that fits, where a member with bad intent can put anything.
func FuzzPayload(f *testing.F) {
	key, id := someone(f, 1)
	domains := []string{domainCertificate, domainAppointment, domainRevocation, domainDeparture, domainNotice}
	for i, r := range samples(f) {
		e, err := Open(r.Raw())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(min(i, 4)), uint64(noon.Unix()), uint64(0), e.Payload)
	}
	f.Fuzz(func(t *testing.T, kind byte, issued, expires uint64, payload []byte) {
		e := Envelope{Domain: domains[int(kind)%len(domains)], Signer: id, Payload: payload}
		e.Issued, e.Expires = time.Unix(int64(issued%timeMax), 0), time.Unix(int64(expires%timeMax), 0)
		raw, err := Seal(key, e)
		if err != nil {
			return
		}
		r, err := ParseRecord(raw)
		if err != nil {
			return
		}
		if c, ok := r.(Certificate); ok && (CleanName(c.Name) != c.Name || !c.Role.Valid() || c.Peer.Validate() != nil) {
			t.Errorf("%+v", c)
		}
	})
}

func FuzzParseOrigin(f *testing.F) {
	_, id := someone(f, 1)
	f.Add(Origin{Genesis: id}.Marshal())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if o, err := ParseOrigin(raw); err == nil && !bytes.Equal(o.Marshal(), raw) {
			t.Errorf("%+v has two encodings", o)
		}
	})
}
