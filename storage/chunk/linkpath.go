package chunk

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const (
	webMax    = 4       // web seeds of a link that are read
	webURLMax = 2 << 10 // bytes of one
)

// ParseLinkPath reads a link or a CID with the path of something inside behind
// it, as a person or a shell puts them together:
//
//	shoal:<cid>/music/one.flac?n=NAME…    <cid>/music/one.flac    LINK/music/one.flac
//
// The path is percent-encoded as the rest of a link is, and comes without the
// slashes around it; "" is the root itself.
func ParseLinkPath(s string) (Link, string, error) {
	l, path, err := parseLinkPath(strings.TrimFunc(s, isWrapping))
	if err == nil {
		path, err = unescape(strings.Trim(path, "/"))
	}
	if err == nil && strings.ContainsRune(path, 0) {
		err = errors.New("the path in it has a NUL")
	}
	if err != nil {
		return Link{}, "", fmt.Errorf("link: %w", err)
	}
	return l, path, nil
}

func parseLinkPath(s string) (Link, string, error) {
	body, ours := s, false
	if len(s) >= len(linkScheme) && strings.EqualFold(s[:len(linkScheme)], linkScheme) {
		body, ours = strings.TrimPrefix(s[len(linkScheme):], "//"), true
	}
	head, query, asks := strings.Cut(body, "?")
	if root, path, ok := strings.Cut(head, "/"); ok {
		if strings.Contains(root, ":") {
			l, err := parseLink(s) // says what it is instead
			return l, "", err
		}
		if asks {
			root += "?" + query
		}
		l, err := parseLink(linkScheme + root)
		return l, path, err
	}
	if !ours || !asks {
		l, err := parseLink(s)
		return l, "", err
	}
	query, path := cutPath(query)
	l, err := parseLink(linkScheme + head + "?" + query)
	return l, path, err
}

// cutPath takes a path that was put behind a whole link off its last field.
func cutPath(query string) (rest, path string) {
	at := strings.LastIndexByte(query, '&') + 1
	key, value, ok := strings.Cut(query[at:], "=")
	if !ok {
		return query, ""
	}
	switch key {
	case "n", "s", "p":
		if i := strings.IndexByte(value, '/'); i >= 0 {
			end := len(query) - len(value) + i
			return query[:end], query[end:]
		}
	case "a":
		// The path begins where the longest address ends.
		begin := at + len("a=")
		for end := len(query); end > begin; end = strings.LastIndexByte(query[:end], '/') {
			addr, err := unescape(query[begin:end])
			if err != nil {
				continue
			}
			if _, err := parseAddr(addr, lastPeer(query[:at])); err == nil {
				return query[:end], query[end:]
			}
		}
	}
	return query, ""
}

// lastPeer is the peer that the last "p" of a query names.
func lastPeer(query string) (at string) {
	for field := range strings.SplitSeq(query, "&") {
		if p, ok := strings.CutPrefix(field, "p="); ok {
			at = p
		}
	}
	return at
}

// CheckWebSeed tells what is wrong with a URL as a web seed, nil if nothing: it
// has to be http or https, with a host, and without a name, a password or a
// fragment, none of which belongs into a link that is passed on.
func CheckWebSeed(s string) error {
	if len(s) > webURLMax {
		return fmt.Errorf("web seed %s has %d bytes, more than %d", clip(s), len(s), webURLMax)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Errorf("web seed %s is not a URL", clip(s)) // the cause repeats all of it
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Opaque != "":
		return fmt.Errorf("web seed %s is not an http or https URL", clip(s))
	case u.User != nil:
		return fmt.Errorf("web seed %s has a name or password in it", clip(u.Redacted()))
	case u.Fragment != "":
		return fmt.Errorf("web seed %s has a #fragment", clip(s))
	}
	return nil
}
