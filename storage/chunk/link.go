package chunk

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/multiformats/go-multiaddr"
)

const (
	linkScheme = "shoal:"
	linkMax    = 8 << 10 // bytes of a link, what chat programs and terminals still carry; String may make longer ones
	addrsMax   = 32      // addresses of a link that are read: they are hints, and every one of them may be dialled
)

// Link is what one person sends another so that they can fetch a root. All but Root is a
// hint: the name to save it under, its size, where a provider was when the link was made.
//
//	shoal:<cid>?n=NAME&s=SIZE&w=URL&p=PEER&a=MULTIADDR&a=MULTIADDR…
//
// A peer is written once, before its addresses, which keeps links and their QR codes short;
// an address that ends in /p2p/<peer> itself is read too.
type Link struct {
	Root  CID
	Name  string                // "" unknown
	Size  int64                 // bytes of all its files, -1 unknown
	Addrs []multiaddr.Multiaddr // each ends in /p2p/<peer>
	Web   []string              // URLs where the bytes of a single file lie too, see CheckWebSeed
}

// String gives the link's one canonical form. Bytes other than letters, digits and
// "-._~/" are percent-encoded, so that only "?" and "&" need quotes in a shell, and
// nothing in a chat program ends it early.
func (l Link) String() string {
	var b strings.Builder
	b.WriteString(linkScheme)
	b.WriteString(l.Root.String())
	sep := byte('?')
	var at string // the peer whose addresses are being written
	put := func(key byte, value string) {
		b.WriteByte(sep)
		b.WriteByte(key)
		b.WriteByte('=')
		escape(&b, value)
		sep = '&'
	}
	if l.Name != "" {
		put('n', l.Name)
	}
	if l.Size >= 0 {
		put('s', strconv.FormatInt(l.Size, 10))
	}
	for _, w := range l.Web {
		put('w', w)
	}
	for _, a := range l.Addrs {
		addr, p := splitPeer(a)
		if p != "" && p != at {
			put('p', p)
			at = p
		}
		put('a', addr)
	}
	return b.String()
}

// splitPeer takes the /p2p/ that ends an address off it. An address that would
// then seem whole keeps it, and p is "".
func splitPeer(a multiaddr.Multiaddr) (addr, p string) {
	rest, last := multiaddr.SplitLast(a)
	if last == nil || last.Protocol().Code != multiaddr.P_P2P || len(rest) == 0 || endsInPeer(rest) {
		return a.String(), ""
	}
	return rest.String(), last.Value()
}

func endsInPeer(a multiaddr.Multiaddr) bool {
	_, last := multiaddr.SplitLast(a)
	return last != nil && last.Protocol().Code == multiaddr.P_P2P
}

func escape(b *strings.Builder, s string) {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		if c := s[i]; isPlain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~/", c) >= 0
}

// unescape undoes percent-encoding. "+" is a plus sign: no form writes links.
func unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if len(s)-i < 3 {
			return "", fmt.Errorf("%q at its end is half a character: cut short?", s[i:])
		}
		v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%q is not a percent-encoded byte", s[i:i+3])
		}
		b = append(b, byte(v))
		i += 2
	}
	return string(b), nil
}

// ParseLink reads a link as a person pastes it: a link or a bare CID, perhaps with white
// space, quotes or angle brackets around it. Unknown keys are ignored, and so are
// addresses after the 32nd. The errors say what is wrong, for the person to read.
func ParseLink(s string) (Link, error) {
	l, err := parseLink(s)
	if err != nil {
		return Link{}, fmt.Errorf("link: %w", err)
	}
	return l, nil
}

func parseLink(s string) (Link, error) {
	s = strings.TrimFunc(s, isWrapping)
	switch {
	case s == "":
		return Link{}, errors.New("it is empty")
	case len(s) > linkMax:
		return Link{}, fmt.Errorf("it has %d characters, more than %d", len(s), linkMax)
	}
	if len(s) >= len(linkScheme) && strings.EqualFold(s[:len(linkScheme)], linkScheme) {
		s = strings.TrimPrefix(s[len(linkScheme):], "//")
	} else if i := strings.IndexAny(s, ":/?"); i >= 0 {
		return Link{}, fmt.Errorf("%s begins neither with %q nor is it a CID", clip(s), linkScheme)
	}
	root, query, _ := strings.Cut(s, "?")
	if root == "" {
		return Link{}, errors.New("it has no CID")
	}
	l := Link{Size: -1}
	var err error
	if l.Root, err = ParseCID(root); err != nil {
		return Link{}, err
	}
	if err := l.parseQuery(query); err != nil {
		return Link{}, err
	}
	return l, nil
}

// isWrapping tells what programs and people put around a link.
func isWrapping(r rune) bool {
	switch r {
	case '<', '>', '"', '\'', '`', '“', '”', '‘', '’', '«', '»', '\u200b', '\ufeff':
		return true
	}
	return unicode.IsSpace(r)
}

func (l *Link) parseQuery(query string) error {
	var seen [256]bool // by key
	var at string      // the peer whose addresses follow
	for query != "" {
		var field string
		field, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(field, "=")
		if len(key) != 1 || strings.IndexByte("nswpa", key[0]) < 0 {
			continue
		}
		if strings.IndexByte("ns", key[0]) >= 0 && seen[key[0]] {
			return fmt.Errorf("it has %q twice", key)
		}
		seen[key[0]] = true
		value, err := unescape(value)
		if err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
		if key == "p" {
			at = value
			continue
		}
		if err := l.set(key[0], value, at); err != nil {
			return err
		}
	}
	return nil
}

// set takes one field in; at is the peer that the last "p" named.
func (l *Link) set(key byte, value, at string) error {
	switch key {
	case 'n':
		if err := CheckName(value, ""); err != nil {
			return err
		}
		l.Name = value
	case 's':
		size, err := strconv.ParseUint(value, 10, 63)
		if err != nil {
			return fmt.Errorf("size %s is not a number of bytes", clip(value))
		}
		l.Size = int64(size)
	case 'w':
		if len(l.Web) == webMax {
			return nil
		}
		if err := CheckWebSeed(value); err != nil {
			return err
		}
		l.Web = append(l.Web, value)
	case 'a':
		if len(l.Addrs) == addrsMax {
			return nil
		}
		addr, err := parseAddr(value, at)
		if err != nil {
			return err
		}
		l.Addrs = append(l.Addrs, addr)
	}
	return nil
}

// parseAddr reads the address of a peer, which is at unless the address names it.
func parseAddr(s, at string) (multiaddr.Multiaddr, error) {
	addr, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return nil, fmt.Errorf("address %s is malformed or cut short", clip(s)) // the cause repeats all of it
	}
	if endsInPeer(addr) {
		return addr, nil
	}
	if at == "" {
		return nil, fmt.Errorf("address %s does not end in /p2p/ and a peer: cut short?", clip(s))
	}
	who, err := multiaddr.NewComponent("p2p", at)
	if err != nil {
		return nil, fmt.Errorf("peer %s is malformed or cut short", clip(at))
	}
	return addr.AppendComponent(who), nil
}
