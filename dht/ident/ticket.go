package ident

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/canon"
)

const (
	// TicketPrefix begins the text of every ticket.
	TicketPrefix = "shoal://join/"
	// TicketMax bounds the text of a ticket, in bytes.
	TicketMax = 2 << 10
	// TicketAddrs is the most addresses that a ticket carries.
	TicketAddrs = 8

	ticketVersion = 1
	ticketAddrMax = 128 // bytes of one binary address
	ticketSum     = 6   // bytes of checksum: enough against typing errors; against malice the handshake stands
)

// What is wrong with the text of a ticket. Each tells the user something different to do.
var (
	ErrTicketForm      = errors.New("this is no ticket: it must begin with " + TicketPrefix)
	ErrTicketTruncated = errors.New("the ticket is cut short: copy it again, all of it")
	ErrTicketAltered   = errors.New("the ticket has a wrong character: copy it again")
	ErrTicketLong      = errors.New("the text is too long for a ticket")
	ErrTicketVersion   = errors.New("the ticket was made by a newer shoal: update this one")
)

// TicketSecret is what the holder of a ticket proves to know. It is never sent.
type TicketSecret [16]byte

// ID names the secret without revealing it: the inviter finds its invitation by it.
func (s TicketSecret) ID() [16]byte {
	sum := sha256.Sum256(append([]byte("shoal ticket id v1\x00"), s[:]...))
	return [16]byte(sum[:16])
}

// Ticket is an invitation: which pool, who invites and where to find it, the one-time secret, until when, as what.
type Ticket struct {
	Pool    PoolID
	Inviter peer.ID
	Addrs   []multiaddr.Multiaddr // of the inviter, without /p2p
	Secret  TicketSecret
	Expires time.Time // to the second
	Role    Role
}

// String returns the one text of the ticket. It contains the secret: whoever reads it can join. More than TicketAddrs
// addresses, and those too long for a ticket, are left out.
func (t Ticket) String() string {
	body := append([]byte(nil), t.Pool[:]...)
	body = canon.AppendBytes(body, t.Inviter)
	body = append(body, t.Secret[:]...)
	body = binary.AppendUvarint(body, unixSeconds(t.Expires))
	body = append(body, byte(t.Role))
	var addrs [][]byte
	for _, a := range t.Addrs {
		if raw := a.Bytes(); len(raw) <= ticketAddrMax && len(raw) > 0 && len(addrs) < TicketAddrs {
			addrs = append(addrs, raw)
		}
	}
	body = binary.AppendUvarint(body, uint64(len(addrs)))
	for _, a := range addrs {
		body = canon.AppendBytes(body, a)
	}
	// The length comes first, so that a ticket that was cut short can be told from one with a wrong character.
	out := binary.AppendUvarint([]byte{ticketVersion}, uint64(len(body)))
	out = append(out, body...)
	sum := sha256.Sum256(out)
	return TicketPrefix + text32.EncodeToString(append(out, sum[:ticketSum]...))
}

// Info returns the inviter's address.
func (t Ticket) Info() peer.AddrInfo { return peer.AddrInfo{ID: t.Inviter, Addrs: t.Addrs} }

// ParseTicket reads what String wrote, with white space around or within it (line breaks of a chat program, say)
// ignored. The errors are those of this file. It does not look at the clock: an expired ticket parses.
func ParseTicket(s string) (Ticket, error) {
	if len(s) > 2*TicketMax {
		return Ticket{}, fmt.Errorf("ident: ticket: %w", ErrTicketLong)
	}
	s = strings.ToLower(strings.Join(strings.Fields(s), ""))
	encoded, ok := strings.CutPrefix(s, TicketPrefix)
	switch {
	case !ok && s != "" && strings.HasPrefix(TicketPrefix, s):
		return Ticket{}, fmt.Errorf("ident: ticket: %w", ErrTicketTruncated)
	case !ok:
		return Ticket{}, fmt.Errorf("ident: ticket: %w", ErrTicketForm)
	case len(s) > TicketMax:
		return Ticket{}, fmt.Errorf("ident: ticket: %w", ErrTicketLong)
	}
	body, err := unwrapTicket(encoded)
	if err != nil {
		return Ticket{}, fmt.Errorf("ident: ticket: %w", err)
	}
	d := decoder{canon.Decoder{Rest: body}}
	t := d.ticket()
	// A ticket whose checksum is right and whose content is not was made so: no copying error explains it.
	if err := d.End(); err != nil {
		return Ticket{}, fmt.Errorf("ident: ticket: %w (%w)", ErrTicketAltered, err)
	}
	return t, nil
}

// unwrapTicket decodes the text and checks version, length and checksum.
func unwrapTicket(encoded string) ([]byte, error) {
	raw, err := text32.DecodeString(encoded)
	if err != nil {
		// A last character too few makes base32 itself complain. Which it was, shows in what came before.
		if raw, err = text32.DecodeString(encoded[:len(encoded)/8*8]); err != nil {
			return nil, ErrTicketAltered
		}
	}
	d := decoder{canon.Decoder{Rest: raw}}
	version := d.Fixed(1)
	if d.Err != nil {
		return nil, ErrTicketTruncated
	}
	if version[0] != ticketVersion {
		// A newer version is believed only when the rest is sound, or each first character mistyped would be one.
		if len(raw) > ticketSum && checksumFits(raw) {
			return nil, ErrTicketVersion
		}
		return nil, ErrTicketAltered
	}
	n := d.Uvarint()
	switch {
	case errors.Is(d.Err, canon.ErrShort):
		return nil, ErrTicketTruncated
	case d.Err != nil, n > TicketMax:
		return nil, ErrTicketAltered
	case uint64(len(d.Rest)) < n+ticketSum:
		return nil, ErrTicketTruncated
	case uint64(len(d.Rest)) > n+ticketSum, !checksumFits(raw), text32.EncodeToString(raw) != encoded:
		return nil, ErrTicketAltered
	}
	return d.Fixed(int(n)), nil
}

func checksumFits(raw []byte) bool {
	sum := sha256.Sum256(raw[:len(raw)-ticketSum])
	return string(sum[:ticketSum]) == string(raw[len(raw)-ticketSum:])
}

// ticket reads the content.
func (d *decoder) ticket() Ticket {
	var t Ticket
	copy(t.Pool[:], d.Fixed(len(t.Pool)))
	t.Inviter = d.peer()
	copy(t.Secret[:], d.Fixed(len(t.Secret)))
	t.Expires = d.time()
	if role := d.Fixed(1); role != nil {
		t.Role = Role(role[0])
		if !t.Role.Valid() {
			d.failf("its role is unknown")
		}
	}
	n := d.Uvarint()
	if n > TicketAddrs {
		d.failf("it has more than %d addresses", TicketAddrs)
	}
	for range n {
		if d.Err != nil {
			return t
		}
		d.addr(&t)
	}
	return t
}

// addr reads one address. One of a kind that this build does not know is skipped: the ticket may have others.
func (d *decoder) addr(t *Ticket) {
	raw := d.Bytes(ticketAddrMax)
	if d.Err != nil {
		return
	}
	if len(raw) == 0 {
		d.failf("it has an empty address")
		return
	}
	a, err := multiaddr.NewMultiaddrBytes(raw)
	if err != nil {
		return
	}
	if _, last := multiaddr.SplitLast(a); last != nil && last.Protocol().Code == multiaddr.P_P2P {
		return // it would name another peer than the inviter, or the same twice
	}
	t.Addrs = append(t.Addrs, a)
}
