package pool

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
)

// What the pool's secret is for. Each use has its own label, so that nothing made for one serves another.
const (
	labelRendezvous = "shoal rendezvous v1"
	labelProvide    = "shoal provide v1"
	labelGreet      = "shoal greet v1"
	labelGreeted    = "shoal greeted v1"
)

// keyed is HMAC-SHA256 over a label and parts, each with its length before it, so that no two lists of parts are the same
// bytes.
func keyed(key []byte, label string, parts ...[]byte) [32]byte {
	mac := hmac.New(sha256.New, key)
	for _, part := range append([][]byte{[]byte(label)}, parts...) {
		mac.Write(binary.AppendUvarint(nil, uint64(len(part))))
		mac.Write(part)
	}
	return [32]byte(mac.Sum(nil))
}

// newSecret draws a secret.
func newSecret(number uint64) (secret, error) {
	s := secret{number: number}
	_, err := rand.Read(s.key[:])
	return s, err
}

// Blind turns a name into the key under which the pool's members provide it in the DHT, so that nobody else learns what
// they hold. The first result follows from the current secret and is what to provide under; the others follow from earlier
// secrets, and are worth looking under after an eviction.
func (p *Pool) Blind(name []byte) [][32]byte {
	var out [][32]byte
	for _, s := range *p.secrets.Load() {
		out = append(out, keyed(s.key[:], labelProvide, name))
	}
	return out
}

// meetings returns the keys under which members meet in the DHT around a time: of each secret kept, for the day, and for
// the neighbouring one while clocks may differ about which day it is.
func meetings(secrets []secret, now time.Time) map[[32]byte]bool {
	const daySeconds, blur = 24 * 60 * 60, 3 * time.Hour
	out := make(map[[32]byte]bool)
	for _, s := range secrets {
		for _, at := range []time.Time{now.Add(-blur), now, now.Add(blur)} {
			day := binary.BigEndian.AppendUint64(nil, uint64(at.Unix())/daySeconds)
			number := binary.BigEndian.AppendUint64(nil, s.number)
			out[keyed(s.key[:], labelRendezvous, number, day)] = true
		}
	}
	return out
}

// greetTag proves to one peer, in one greeting, that the sender knows a secret.
func greetTag(s secret, label string, from, to peer.ID, nonces ...[]byte) [32]byte {
	return keyed(s.key[:], label, append([][]byte{[]byte(from), []byte(to)}, nonces...)...)
}

// errSecret is what adopt answers to a secret that no admin announced.
var errSecret = errors.New("pool: a secret that no admin announced")

// adopt adds a secret that fits the notice, in front of the earlier ones.
func adopt(secrets []secret, s secret, n ident.Notice) ([]secret, error) {
	if s.number != n.Number || ident.SecretSum(s.key) != n.Sum {
		return secrets, errSecret
	}
	if len(secrets) > 0 && secrets[0] == s {
		return secrets, nil
	}
	out := slices.Insert(slices.DeleteFunc(slices.Clone(secrets), func(o secret) bool { return o == s }), 0, s)
	return out[:min(len(out), secretsMax)], nil
}
