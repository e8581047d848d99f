package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	webDialWait   = 10 * time.Second
	webAnswerWait = 20 * time.Second // for the header of an answer
	webStall      = 30 * time.Second // for the next bytes of a body
	redirectsMax  = 5
	webHeaderMax  = 64 << 10
	webAgent      = "shoal"
)

// webClient makes requests for web seeds. The URLs come from strangers' links,
// and a link must not make this peer knock at doors inside its own network. So,
// unless private is true, it connects only to public addresses (as the name
// resolved at that moment, at every redirect again) and to ports where the web
// is. It uses no proxy, which would do the connecting unseen, keeps no cookies,
// and never says where it comes from.
func webClient(private bool) *http.Client {
	d := &net.Dialer{Timeout: webDialWait}
	if !private {
		d.Control = func(_, address string, _ syscall.RawConn) error { return publicAddress(address) }
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            d.DialContext,
			TLSHandshakeTimeout:    webDialWait,
			ResponseHeaderTimeout:  webAnswerWait,
			IdleConnTimeout:        webAnswerWait,
			MaxConnsPerHost:        2,
			DisableCompression:     true,
			MaxResponseHeaderBytes: webHeaderMax,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			switch {
			case len(via) > redirectsMax:
				return webRefusal{fmt.Sprintf("more than %d redirects", redirectsMax)}
			case r.URL.Scheme != "http" && r.URL.Scheme != "https":
				return webRefusal{fmt.Sprintf("a redirect to %q", r.URL.Scheme)}
			case r.URL.Scheme == "http" && via[0].URL.Scheme == "https":
				return webRefusal{"a redirect from https to http"}
			}
			r.Header.Del("Referer")
			return nil
		},
	}
}

var errNotPublic = errors.New("not a public address of the web")

// publicAddress refuses what is not on the public internet, or no web port.
func publicAddress(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if p := ap.Port(); !isPublic(ap.Addr()) || p != 80 && p != 443 && p < 1024 {
		return fmt.Errorf("%s: %w (see --allow-private-web-seeds)", ap, errNotPublic)
	}
	return nil
}

// special are the parts of the address space that lead somewhere else than to a
// host on the internet (the IANA special-purpose registries), beyond what package
// netip names.
var special = func() (out []netip.Prefix) {
	for _, p := range strings.Fields("0.0.0.0/8 100.64.0.0/10 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 " +
		"203.0.113.0/24 240.0.0.0/4 2001::/23 2001:db8::/32 2002::/16 3fff::/20") {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}()

// nat64 addresses have an IPv4 address inside, which is what they lead to.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap()
	if nat64.Contains(ip) {
		b := ip.As16()
		return isPublic(netip.AddrFrom4([4]byte(b[12:])))
	}
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.Zone() != "" {
		return false
	}
	if ip.Is6() && ip.As16()[0]>>5 != 1 { // all that was given out is in 2000::/3
		return false
	}
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// webRange asks for n bytes at an offset of what url names. size is that of the
// whole, -1 for any. It returns the body, to be closed, and the size of the
// whole. The error says what the server did not do.
func webRange(ctx context.Context, c *http.Client, url string, offset, n, size int64) (io.ReadCloser, int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel(nil)
		return nil, 0, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+n-1))
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", webAgent)
	resp, err := c.Do(req)
	if err != nil {
		cancel(nil)
		return nil, 0, err
	}
	total, err := checkRanged(resp, offset, n, size)
	if err != nil {
		cancel(nil)
		_ = resp.Body.Close()
		return nil, 0, err
	}
	return &stalling{body: resp.Body, cancel: cancel}, total, nil
}

// webRefusal is an answer that will be the same the next time.
type webRefusal struct{ text string }

func (e webRefusal) Error() string { return e.text }

// checkRanged makes sure that an answer is the range that was asked for.
func checkRanged(resp *http.Response, offset, n, size int64) (total int64, err error) {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return 0, webRefusal{"its server does not support ranges"}
	case code == http.StatusRequestedRangeNotSatisfiable:
		return 0, webRefusal{"it has fewer bytes there"}
	case code == http.StatusTooManyRequests, code >= 500:
		return 0, fmt.Errorf("its server answers %s", resp.Status)
	case code != http.StatusPartialContent:
		return 0, webRefusal{"its server answers " + http.StatusText(code)}
	case resp.Header.Get("Content-Encoding") != "":
		return 0, webRefusal{"its server encodes the bytes"}
	}
	first, last, total, ok := parseContentRange(resp.Header.Get("Content-Range"))
	switch {
	case !ok || first != offset || last != min(offset+n, total)-1:
		return 0, webRefusal{"its server sends another range than was asked for"}
	case size >= 0 && total != size:
		return 0, webRefusal{fmt.Sprintf("it has %d bytes there, not %d", total, size)}
	}
	return total, nil
}

// parseContentRange reads "bytes 0-9/100" (RFC 9110, 14.4).
func parseContentRange(s string) (first, last, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, all, ok1 := strings.Cut(s, "/")
	from, to, ok2 := strings.Cut(span, "-")
	var errs [3]error
	first, errs[0] = strconv.ParseInt(from, 10, 63)
	last, errs[1] = strconv.ParseInt(to, 10, 63)
	total, errs[2] = strconv.ParseInt(all, 10, 63)
	return first, last, total, ok && ok1 && ok2 && errors.Join(errs[:]...) == nil && first <= last && last < total
}

// stalling is a body that fails when no bytes come for webStall.
type stalling struct {
	body   io.ReadCloser
	cancel context.CancelCauseFunc
}

func (s *stalling) Read(p []byte) (int, error) {
	t := time.AfterFunc(webStall, func() { s.cancel(errors.New("its server stopped sending")) })
	defer t.Stop()
	return s.body.Read(p)
}

func (s *stalling) Close() error {
	s.cancel(nil)
	return s.body.Close()
}

// WebRead reads n bytes at an offset of what a URL names, whose size must be size
// (-1 for any), and returns the true size too. private allows any address: it is
// for URLs that the person at this machine gave.
func WebRead(ctx context.Context, url string, offset, n, size int64, private bool) ([]byte, int64, error) {
	c := webClient(private)
	defer c.CloseIdleConnections()
	body, total, err := webRange(ctx, c, url, offset, n, size)
	if err != nil {
		return nil, 0, fmt.Errorf("exchange: web seed: %w", err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, n))
	if err == nil && int64(len(data)) != min(n, total-offset) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, 0, fmt.Errorf("exchange: web seed: %w", err)
	}
	return data, total, nil
}

// WebGet reads all that a URL names, which the person at this machine gave. The
// body must be closed; size is -1 if the server does not tell it.
func WebGet(ctx context.Context, url string) (body io.ReadCloser, size int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel(nil)
		return nil, 0, fmt.Errorf("exchange: web: %w", err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", webAgent)
	resp, err := webClient(true).Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		err = fmt.Errorf("the server answers %s", resp.Status)
	}
	if err != nil {
		cancel(nil)
		return nil, 0, fmt.Errorf("exchange: web: %w", err)
	}
	return &stalling{body: resp.Body, cancel: cancel}, resp.ContentLength, nil
}
