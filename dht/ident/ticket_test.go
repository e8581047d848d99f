package ident

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/canon"
)

func sampleTicket(t testing.TB) Ticket {
	t.Helper()
	_, id := someone(t, 1)
	tk := Ticket{
		Pool: Origin{Genesis: id}.ID(), Inviter: id, Secret: TicketSecret{1, 2, 3}, Expires: noon.Add(24 * time.Hour), Role: RoleMember,
	}
	for _, s := range []string{"/ip4/192.168.1.7/tcp/4001", "/ip6/::1/udp/4001/quic-v1"} {
		tk.Addrs = append(tk.Addrs, multiaddr.StringCast(s))
	}
	return tk
}

func same(a, b Ticket) bool {
	if len(a.Addrs) != len(b.Addrs) {
		return false
	}
	for i := range a.Addrs {
		if !a.Addrs[i].Equal(b.Addrs[i]) {
			return false
		}
	}
	return a.Pool == b.Pool && a.Inviter == b.Inviter && a.Secret == b.Secret && a.Expires.Equal(b.Expires) && a.Role == b.Role
}

func TestTicketRoundTrip(t *testing.T) {
	tk := sampleTicket(t)
	s := tk.String()
	t.Logf("%d characters: %s", len(s), s)
	for _, form := range []string{s, " " + s + "\n", s[:60] + "\n  " + s[60:], strings.ToUpper(s)} {
		got, err := ParseTicket(form)
		if err != nil || !same(got, tk) {
			t.Errorf("%q: %+v, %v", form, got, err)
		}
	}
	tk.Addrs = nil
	if got, err := ParseTicket(tk.String()); err != nil || !same(got, tk) {
		t.Errorf("without addresses: %+v, %v", got, err)
	}
	for range 2 * TicketAddrs {
		tk.Addrs = append(tk.Addrs, multiaddr.StringCast("/dns/"+strings.Repeat("x", 63)+".example/tcp/4001"))
	}
	tk.Addrs = append(tk.Addrs, multiaddr.StringCast("/dns/"+strings.Repeat("x", 250)+"/tcp/4001"))
	got, err := ParseTicket(tk.String())
	if err != nil || len(got.Addrs) != TicketAddrs {
		t.Errorf("with too many addresses: %d, %v", len(got.Addrs), err)
	}
}

// Each way in which a text can be wrong has its own error.
func TestTicketErrors(t *testing.T) {
	s := sampleTicket(t).String()
	for i := range s {
		_, err := ParseTicket(s[:i])
		want := ErrTicketTruncated
		if i == 0 {
			want = ErrTicketForm
		}
		if !errors.Is(err, want) {
			t.Fatalf("the first %d of %d characters: %v", i, len(s), err)
		}
	}
	for i := len(TicketPrefix); i < len(s); i++ {
		for _, c := range []byte{'a', 'z', '1', '!', '7'} {
			if s[i] == c {
				continue
			}
			_, err := ParseTicket(s[:i] + string(c) + s[i+1:])
			if err == nil || errors.Is(err, ErrTicketForm) {
				t.Fatalf("character %d made %q: %v", i, c, err)
			}
			// A wrong length looks like a ticket that was cut short; everything behind it does not.
			if i > len(TicketPrefix)+5 && !errors.Is(err, ErrTicketAltered) {
				t.Fatalf("character %d made %q: %v", i, c, err)
			}
		}
	}
	for text, want := range map[string]error{
		"":                             ErrTicketForm,
		"hello":                        ErrTicketForm,
		"shoal:bafy?n=x":               ErrTicketForm,
		"shoal://jo":                   ErrTicketTruncated,
		s + "a":                        ErrTicketAltered,
		s + s:                          ErrTicketAltered,
		s + strings.Repeat("a", 8<<10): ErrTicketLong,
	} {
		if _, err := ParseTicket(text); !errors.Is(err, want) {
			t.Errorf("%.40q: %v, want %v", text, err, want)
		}
	}
}

func TestTicketSecretIsNotItsID(t *testing.T) {
	a, b := TicketSecret{1}, TicketSecret{2}
	if a.ID() == b.ID() || a.ID() == [16]byte(a) {
		t.Error("the id says the secret")
	}
}

func FuzzParseTicket(f *testing.F) {
	s := sampleTicket(f).String()
	f.Add(s)
	f.Add(s[:len(s)-3])
	f.Add(TicketPrefix)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		tk, err := ParseTicket(text)
		if err != nil {
			return
		}
		again, err := ParseTicket(tk.String())
		if err != nil || !same(tk, again) {
			t.Errorf("%+v, %v", again, err)
		}
	})
}

// FuzzTicketBody has the content fuzzed behind a checksum that fits.
func FuzzTicketBody(f *testing.F) {
	raw, err := unwrapTicket(strings.TrimPrefix(sampleTicket(f).String(), TicketPrefix))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, body []byte) {
		d := decoder{canon.Decoder{Rest: body}}
		tk := d.ticket()
		if d.End() != nil {
			return
		}
		again, err := ParseTicket(tk.String())
		if err != nil || !same(tk, again) {
			t.Errorf("%+v, %v", again, err)
		}
	})
}
