package ident

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/canon"
)

// The kinds of records, by their domain strings.
const (
	domainCertificate = "shoal member certificate v1"
	domainAppointment = "shoal admin appointment v1"
	domainRevocation  = "shoal revocation v1"
	domainDeparture   = "shoal departure v1"
	domainNotice      = "shoal secret notice v1"
)

const (
	// CertificateLife is how long a certificate is good for. It is renewed at half of it.
	CertificateLife = 30 * 24 * time.Hour
	// certificateSpan bounds the time between its two ends: its life, and a day by which it may begin earlier.
	certificateSpan = CertificateLife + 24*time.Hour
	// KeepMax bounds the admins that a revocation may name as staying.
	KeepMax = 64
)

// Record is a signed statement about the membership of a pool: a Certificate, Appointment, Revocation, Departure or
// Notice. One that came from ParseRecord or a constructor here carries a signature that fits; whether its signer had the
// right to say so is dht/roster's to judge. Records are immutable values.
type Record interface {
	// Raw returns the encoded record. The caller must not change it.
	Raw() []byte
	// Key names the record's place among the pool's names: of two with the same key at most one counts.
	Key() string
	// Hash is the digest of the encoding, by which records are told apart.
	Hash() [32]byte
	// In returns the pool in which the record counts.
	In() PoolID
	// By returns who signed it.
	By() peer.ID
	// About returns whom it is about; for a Notice the signer.
	About() peer.ID
}

// head is what all records have.
type head struct {
	Pool   PoolID
	Signer peer.ID
	raw    []byte
	hash   [32]byte
}

// Raw returns the encoded record.
func (h head) Raw() []byte { return h.raw }

// Hash returns the digest of the encoding.
func (h head) Hash() [32]byte { return h.hash }

// In returns the pool.
func (h head) In() PoolID { return h.Pool }

// By returns the signer.
func (h head) By() peer.ID { return h.Signer }

// Certificate says that a peer is a member, under which name and in which role, from one time to another.
type Certificate struct {
	head
	Peer      peer.ID
	Name      string
	Role      Role
	Serial    uint64 // grows with each certificate of the same peer; the greatest in force counts
	NotBefore time.Time
	NotAfter  time.Time
}

// Key is the same for all certificates of a peer.
func (c Certificate) Key() string { return "member/" + c.Peer.String() }

// About returns the member.
func (c Certificate) About() peer.ID { return c.Peer }

// HalfLife is when the certificate is to be renewed.
func (c Certificate) HalfLife() time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2)
}

// Appointment makes a member an admin. It does not expire, so that a pool whose first admin is gone has others for
// good; an eviction ends it.
type Appointment struct {
	head
	Peer peer.ID
	At   time.Time
}

// Key names the appointment by both ends: each admin's appointments stand beside those of others.
func (a Appointment) Key() string { return "admin/" + a.Peer.String() + "/" + a.Signer.String() }

// About returns the new admin.
func (a Appointment) About() peer.ID { return a.Peer }

// Revocation ends a peer's membership for good, by its key. When the peer was an admin, what it signed ends with it,
// but for the appointments of those in Keep.
type Revocation struct {
	head
	Peer peer.ID
	At   time.Time
	Keep []peer.ID // in order, at most KeepMax
}

// Key names the revocation by both ends.
func (r Revocation) Key() string { return "evict/" + r.Peer.String() + "/" + r.Signer.String() }

// About returns the evicted peer.
func (r Revocation) About() peer.ID { return r.Peer }

// Departure says that a member left by its own will. It ends all its certificates up to a serial, so that a later
// invitation counts again.
type Departure struct {
	head
	Serial uint64
	At     time.Time
}

// Key names the departure by who left.
func (d Departure) Key() string { return "left/" + d.Signer.String() }

// About returns who left.
func (d Departure) About() peer.ID { return d.Signer }

// Notice announces the pool's current secret by number and digest. The secret itself goes from member to member, and the
// notice tells a true one from an invented one.
type Notice struct {
	head
	Number uint64
	Sum    [32]byte
	At     time.Time
}

// Key is the same for all notices of a signer.
func (n Notice) Key() string { return "secret/" + n.Signer.String() }

// About returns the signer.
func (n Notice) About() peer.ID { return n.Signer }

// IssueCertificate signs a certificate. The signer follows from key; pool, peer, name, role, serial and times come from
// c. The name must be as CleanName leaves it.
func IssueCertificate(key crypto.PrivKey, c Certificate) (Certificate, error) {
	payload := canon.AppendBytes(nil, c.Peer)
	payload = canon.AppendBytes(payload, c.Name)
	payload = append(payload, byte(c.Role))
	payload = binary.AppendUvarint(payload, c.Serial)
	return issue[Certificate](key, Envelope{
		Domain: domainCertificate, Pool: c.Pool, Issued: c.NotBefore, Expires: c.NotAfter, Payload: payload,
	})
}

// IssueAppointment signs an appointment of peer as admin.
func IssueAppointment(key crypto.PrivKey, pool PoolID, p peer.ID, at time.Time) (Appointment, error) {
	return issue[Appointment](key, Envelope{Domain: domainAppointment, Pool: pool, Issued: at, Payload: canon.AppendBytes(nil, p)})
}

// IssueRevocation signs the eviction of peer. keep must be in ascending order without doubles.
func IssueRevocation(key crypto.PrivKey, pool PoolID, p peer.ID, keep []peer.ID, at time.Time) (Revocation, error) {
	payload := canon.AppendBytes(nil, p)
	payload = binary.AppendUvarint(payload, uint64(len(keep)))
	for _, k := range keep {
		payload = canon.AppendBytes(payload, k)
	}
	return issue[Revocation](key, Envelope{Domain: domainRevocation, Pool: pool, Issued: at, Payload: payload})
}

// IssueDeparture signs that the owner of key leaves and gives up its certificates up to serial.
func IssueDeparture(key crypto.PrivKey, pool PoolID, serial uint64, at time.Time) (Departure, error) {
	payload := binary.AppendUvarint(nil, serial)
	return issue[Departure](key, Envelope{Domain: domainDeparture, Pool: pool, Issued: at, Payload: payload})
}

// IssueNotice signs which secret is the pool's current one.
func IssueNotice(key crypto.PrivKey, pool PoolID, number uint64, secret [32]byte, at time.Time) (Notice, error) {
	sum := SecretSum(secret)
	payload := append(binary.AppendUvarint(nil, number), sum[:]...)
	return issue[Notice](key, Envelope{Domain: domainNotice, Pool: pool, Issued: at, Payload: payload})
}

// SecretSum is the digest by which a Notice names a secret.
func SecretSum(secret [32]byte) [32]byte {
	return sha256.Sum256(append([]byte("shoal pool secret v1\x00"), secret[:]...))
}

// issue signs an envelope and reads it back as the record that others will see.
func issue[R Record](key crypto.PrivKey, e Envelope) (r R, err error) {
	if e.Signer, err = peer.IDFromPrivateKey(key); err != nil {
		return r, fmt.Errorf("ident: issue: %w", err)
	}
	raw, err := Seal(key, e)
	if err != nil {
		return r, err
	}
	rec, err := ParseRecord(raw)
	if err != nil {
		return r, err
	}
	return rec.(R), nil
}

// ParseRecord decodes a record of any kind and checks its signature and its form. The error is ErrSignature when only
// the signature is wrong.
func ParseRecord(raw []byte) (Record, error) {
	e, err := Open(raw)
	if err != nil {
		return nil, err
	}
	h := head{Pool: e.Pool, Signer: e.Signer, raw: append([]byte(nil), raw...), hash: sha256.Sum256(raw)}
	d := decoder{canon.Decoder{Rest: e.Payload}}
	var r Record
	switch e.Domain {
	case domainCertificate:
		r = d.certificate(h, e)
	case domainAppointment:
		r = Appointment{head: h, Peer: d.peer(), At: e.Issued}
	case domainRevocation:
		r = Revocation{head: h, Peer: d.peer(), Keep: d.keep(), At: e.Issued}
	case domainDeparture:
		r = Departure{head: h, Serial: d.Uvarint(), At: e.Issued}
	case domainNotice:
		n := Notice{head: h, Number: d.Uvarint(), At: e.Issued}
		copy(n.Sum[:], d.Fixed(len(n.Sum)))
		r = n
	default:
		return nil, errors.New("ident: record: its kind is unknown")
	}
	if e.Domain != domainCertificate && !e.Expires.IsZero() {
		d.failf("it expires, which its kind does not")
	}
	if e.Issued.IsZero() {
		d.failf("it has no time")
	}
	if err := d.End(); err != nil {
		return nil, fmt.Errorf("ident: record: %w", err)
	}
	return r, nil
}

// certificate reads the payload of one.
func (d *decoder) certificate(h head, e Envelope) Certificate {
	c := Certificate{head: h, NotBefore: e.Issued, NotAfter: e.Expires}
	c.Peer = d.peer()
	c.Name = string(d.Bytes(NameMax))
	if role := d.Fixed(1); role != nil {
		c.Role = Role(role[0])
	}
	c.Serial = d.Uvarint()
	switch {
	case d.Err != nil:
	case c.Name == "" || CleanName(c.Name) != c.Name:
		d.failf("its name has characters that names must not have")
	case !c.Role.Valid():
		d.failf("its role is unknown")
	case !c.NotAfter.After(c.NotBefore) || c.NotAfter.Sub(c.NotBefore) > certificateSpan:
		d.failf("its times are out of bounds")
	}
	return c
}

// keep reads a list of peers in strictly ascending order.
func (d *decoder) keep() []peer.ID {
	n := d.Uvarint()
	if n > KeepMax {
		d.failf("it keeps more than %d admins", KeepMax)
		return nil
	}
	var out []peer.ID
	for range n {
		p := d.peer()
		if len(out) > 0 && p <= out[len(out)-1] {
			d.failf("its list is not in order")
		}
		if d.Err != nil {
			return nil
		}
		out = append(out, p)
	}
	return out
}
