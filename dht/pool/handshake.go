package pool

import (
	"crypto/hmac"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
)

const (
	// joinNonce is the size of each side's part of the transcript, in bytes.
	joinNonce = 32

	labelJoin    = "shoal join v1"
	labelInviter = "shoal join inviter v1"
	labelJoiner  = "shoal join joiner v1"
	labelWords   = "shoal join words v1"
)

// transcript is all that both sides of a join must agree on. The proofs are keyed hashes over it: they hold for these two
// peers, as the connection has authenticated them, for this one attempt, and for this name, and can be used nowhere else.
type transcript struct {
	pool            ident.PoolID
	ticket          [16]byte
	inviter, joiner peer.ID
	begin, answer   []byte // the joiner's nonce, and the inviter's
	name            string
}

func (t transcript) hash() [32]byte {
	return keyed(nil, labelJoin, t.pool[:], t.ticket[:], []byte(t.inviter), []byte(t.joiner), t.begin, t.answer, []byte(t.name))
}

// proof is what one side shows the other.
func (t transcript) proof(key [32]byte, label string) []byte {
	sum := t.hash()
	mac := keyed(key[:], label, sum[:])
	return mac[:]
}

// proves reports whether a proof is right, in a time that says nothing about where it is not.
func (t transcript) proves(key [32]byte, label string, proof []byte) bool {
	return hmac.Equal(t.proof(key, label), proof)
}

// words are the same on both sides, and differ for anybody else.
func (t transcript) words(key [32]byte) string {
	return words([32]byte(t.proof(key, labelWords)))
}
