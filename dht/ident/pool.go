package ident

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/canon"
)

const (
	poolDomain = "shoal pool v1"
	saltSize   = 16
	// peerIDMax bounds a peer id in a record, in bytes. One with an Ed25519 key within has 38.
	peerIDMax = 64
)

// text32 is how ids and tickets are written: lower case, no padding, nothing that a shell or a chat program changes.
var text32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// PoolID names a pool: the digest of its origin, so that whoever knows the id can tell the true first admin from an
// invented one. It is comparable. The zero value is no pool.
type PoolID [32]byte

// String returns the whole id in base32, 52 characters.
func (p PoolID) String() string { return text32.EncodeToString(p[:]) }

// Short returns the first characters of the id, for the screen.
func (p PoolID) Short() string { return p.String()[:8] }

// Defined reports whether the id is not the zero value.
func (p PoolID) Defined() bool { return p != PoolID{} }

// ParsePoolID reads what String wrote.
func ParsePoolID(s string) (PoolID, error) {
	raw, err := text32.DecodeString(s)
	if err != nil || len(raw) != len(PoolID{}) || text32.EncodeToString(raw) != s {
		return PoolID{}, errors.New("ident: this is no pool id")
	}
	return PoolID(raw), nil
}

// Origin is what a pool began with: the key of its first admin, and chance, so that one key can begin many pools. It is
// the root of every chain of admins. It carries no signature because its digest is the pool's id.
type Origin struct {
	Genesis peer.ID
	Salt    [saltSize]byte
}

// NewOrigin makes the origin of a new pool whose first admin is genesis.
func NewOrigin(genesis peer.ID) (Origin, error) {
	o := Origin{Genesis: genesis}
	if _, err := publicKey(genesis); err != nil {
		return Origin{}, fmt.Errorf("ident: new pool: %w", err)
	}
	if _, err := rand.Read(o.Salt[:]); err != nil {
		return Origin{}, fmt.Errorf("ident: new pool: %w", err)
	}
	return o, nil
}

// ID returns the pool's id: sha2-256 over the domain string, the raw public key of the first admin, and the salt.
func (o Origin) ID() PoolID {
	sum := sha256.New()
	sum.Write([]byte(poolDomain))
	if key, err := publicKey(o.Genesis); err == nil {
		if raw, err := key.Raw(); err == nil {
			sum.Write(raw)
		}
	}
	sum.Write(o.Salt[:])
	return PoolID(sum.Sum(nil))
}

// Marshal encodes the origin.
func (o Origin) Marshal() []byte { return append(canon.AppendBytes(nil, o.Genesis), o.Salt[:]...) }

// ParseOrigin decodes what Marshal wrote.
func ParseOrigin(raw []byte) (Origin, error) {
	d := decoder{canon.Decoder{Rest: raw}}
	o := Origin{Genesis: d.peer()}
	copy(o.Salt[:], d.Fixed(saltSize))
	if err := d.End(); err != nil {
		return Origin{}, fmt.Errorf("ident: pool origin: %w", err)
	}
	return o, nil
}

// peer reads a peer id that carries its Ed25519 key.
func (d *decoder) peer() peer.ID {
	raw := d.Bytes(peerIDMax)
	if d.Err != nil {
		return ""
	}
	id := peer.ID(raw)
	if _, err := publicKey(id); err != nil {
		d.failf("it names a peer whose id is malformed: %w", err)
		return ""
	}
	return id
}

// publicKey takes the Ed25519 key out of a peer id. Ids of other kinds are refused: they would have to be looked up,
// and some of their signatures can be changed into other valid ones.
func publicKey(id peer.ID) (crypto.PubKey, error) {
	key, err := id.ExtractPublicKey()
	if err != nil {
		return nil, err
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("a key of the kind %s, not Ed25519", key.Type())
	}
	// One key has one id: a longer spelling of the same key would slip past an eviction.
	if again, err := peer.IDFromPublicKey(key); err != nil || again != id {
		return nil, errors.New("not the shortest id of its key")
	}
	return key, nil
}

// Role is what a member may do. The numbers are append-only.
type Role uint8

// The roles. Each may do what those before it may.
const (
	RoleNone     Role = 0 // no member
	RoleTerminal Role = 1 // gives commands, stores and computes nothing
	RoleMember   Role = 2 // lends space and cores
	RoleAdmin    Role = 3 // invites, renews, evicts
)

// String names the role as the command line does.
func (r Role) String() string {
	switch r {
	case RoleTerminal:
		return "terminal"
	case RoleMember:
		return "member"
	case RoleAdmin:
		return "admin"
	default:
		return "none"
	}
}

// Valid reports whether r is one of the roles of a member.
func (r Role) Valid() bool { return r >= RoleTerminal && r <= RoleAdmin }

// ParseRole reads what String wrote.
func ParseRole(s string) (Role, error) {
	for r := RoleTerminal; r <= RoleAdmin; r++ {
		if strings.EqualFold(s, r.String()) {
			return r, nil
		}
	}
	return RoleNone, fmt.Errorf("ident: %q is no role; there are member, terminal and admin", s)
}
