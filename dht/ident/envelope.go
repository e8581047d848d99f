package ident

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/canon"
)

const (
	// RecordMax bounds a signed record, in bytes.
	RecordMax = 8 << 10

	domainMax = 64
	sigSize   = 64
	// signPrefix stands before everything that is signed here, so that no signature made for another purpose (a TLS
	// handshake, a gossip message) can pass for a record.
	signPrefix = "shoal signed v1\x00"
	// timeMax is the last second that a record may name, in the year 9999.
	timeMax = 253402300799
)

// ErrSignature says that a signature does not belong to the signer and the content: something was altered or invented.
var ErrSignature = errors.New("the signature is not the signer's")

// Sign signs a payload under a domain string. The same payload under another domain has another signature: what was
// signed as one kind of record can never be shown as another.
func Sign(key crypto.PrivKey, domain string, payload []byte) ([]byte, error) {
	sig, err := key.Sign(signed(domain, payload))
	if err != nil {
		return nil, fmt.Errorf("ident: sign: %w", err)
	}
	return sig, nil
}

// Verify checks a signature made by Sign. It returns an error that is ErrSignature when it does not fit. Signers other
// than Ed25519 are refused.
func Verify(signer peer.ID, domain string, payload, sig []byte) error {
	key, err := publicKey(signer)
	if err != nil {
		return fmt.Errorf("ident: verify: signer: %w", err)
	}
	ok, err := key.Verify(signed(domain, payload), sig)
	if err != nil || !ok {
		return fmt.Errorf("ident: verify: %w", ErrSignature)
	}
	return nil
}

func signed(domain string, payload []byte) []byte {
	buf := make([]byte, 0, len(signPrefix)+len(domain)+len(payload)+2)
	buf = append(buf, signPrefix...)
	return append(canon.AppendBytes(buf, domain), payload...)
}

// Envelope is the frame of every signed record: what kind it is, in which pool it counts, who says so, and for how long.
type Envelope struct {
	Domain  string // the kind of the payload, different for each
	Pool    PoolID
	Signer  peer.ID
	Issued  time.Time // to the second
	Expires time.Time // to the second; zero: never
	Payload []byte
}

// Seal encodes and signs an envelope with the key of its signer. Times are cut to seconds.
func Seal(key crypto.PrivKey, e Envelope) ([]byte, error) {
	body := e.body()
	sig, err := Sign(key, e.Domain, body)
	if err != nil {
		return nil, err
	}
	raw := append(body, sig...)
	if _, err := Open(raw); err != nil {
		return nil, fmt.Errorf("ident: seal: %w", err)
	}
	return raw, nil
}

// body is everything but the signature.
func (e Envelope) body() []byte {
	buf := canon.AppendBytes(nil, e.Domain)
	buf = append(buf, e.Pool[:]...)
	buf = canon.AppendBytes(buf, e.Signer)
	buf = binary.AppendUvarint(buf, unixSeconds(e.Issued))
	buf = binary.AppendUvarint(buf, unixSeconds(e.Expires))
	return canon.AppendBytes(buf, e.Payload)
}

// unixSeconds is zero for the zero time and for all before 1970.
func unixSeconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(0, t.Unix()))
}

// Open decodes an envelope and checks its signature. It does not judge times nor whether the signer may say such a
// thing. The payload is a copy.
func Open(raw []byte) (Envelope, error) {
	if len(raw) > RecordMax {
		return Envelope{}, fmt.Errorf("ident: record: %w", canon.ErrLimit)
	}
	d := decoder{canon.Decoder{Rest: raw}}
	e := Envelope{Domain: string(d.Bytes(domainMax))}
	copy(e.Pool[:], d.Fixed(len(e.Pool)))
	e.Signer = d.peer()
	e.Issued, e.Expires = d.time(), d.time()
	payload := d.Bytes(RecordMax)
	body := len(raw) - len(d.Rest)
	sig := d.Fixed(sigSize)
	if err := d.End(); err != nil {
		return Envelope{}, fmt.Errorf("ident: record: %w", err)
	}
	if err := Verify(e.Signer, e.Domain, raw[:body], sig); err != nil {
		return Envelope{}, fmt.Errorf("ident: record: %w", ErrSignature)
	}
	e.Payload = append([]byte(nil), payload...)
	return e, nil
}

// time reads a second; zero is the zero time.
func (d *decoder) time() time.Time {
	n := d.Uvarint()
	if n > timeMax {
		d.failf("it names a time that is out of bounds")
	}
	if d.Err != nil || n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0).UTC()
}
