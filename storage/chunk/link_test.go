package chunk

import (
	"slices"
	"strings"
	"testing"

	"github.com/multiformats/go-multiaddr"
	"pgregory.net/rapid"
)

const (
	peerID   = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
	peerAddr = "/p2p/" + peerID
)

func sameLink(a, b Link) bool {
	return a.Root == b.Root && a.Name == b.Name && a.Size == b.Size && slices.Equal(a.Web, b.Web) &&
		slices.EqualFunc(a.Addrs, b.Addrs, func(x, y multiaddr.Multiaddr) bool { return x.Equal(y) })
}

func addrs(texts ...string) (list []multiaddr.Multiaddr) {
	for _, s := range texts {
		list = append(list, multiaddr.StringCast(s+peerAddr))
	}
	return list
}

func TestLinkText(t *testing.T) {
	root := leaf.String()
	for text, l := range map[string]Link{
		"shoal:" + root: {Root: leaf, Size: -1},
		"shoal:" + root + "?n=my%20%E2%9D%84%20%26%20pics%3F.tar&s=0":                               {Root: leaf, Name: "my ❄ & pics?.tar"},
		"shoal:" + root + "?n=C%2B%2B&s=12&p=" + peerID + "&a=/ip4/10.0.0.1/tcp/4001":               {Root: leaf, Name: "C++", Size: 12, Addrs: addrs("/ip4/10.0.0.1/tcp/4001")},
		"shoal:" + root + "?p=" + peerID + "&a=/ip4/10.0.0.1/udp/4/quic-v1&a=/dns4/x.example/tcp/1": {Root: leaf, Size: -1, Addrs: addrs("/ip4/10.0.0.1/udp/4/quic-v1", "/dns4/x.example/tcp/1")},
	} {
		if got := l.String(); got != text {
			t.Errorf("String gives %s\nwant %s", got, text)
		}
		for _, around := range []string{"@", " @\r\n", "<@>", "\"@\"", "'@'", "“@”", "\t<\"@\">", "\ufeff@\u200b"} {
			pasted := strings.Replace(around, "@", text, 1)
			if got, err := ParseLink(pasted); err != nil || !sameLink(got, l) {
				t.Errorf("%q gives %+v, error %v", pasted, got, err)
			}
		}
	}
}

func TestLinkTolerance(t *testing.T) {
	root := leaf.String()
	for text, want := range map[string]Link{
		root: {Root: leaf, Size: -1},
		"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn": {Root: SumNode([]byte(dirHeader)), Size: -1},
		"SHOAL:" + root:                                                      {Root: leaf, Size: -1},
		"shoal://" + root + "?s=1":                                           {Root: leaf, Size: 1},
		"shoal:" + root + "?":                                                {Root: leaf, Size: -1},
		"shoal:" + root + "?zz=1&q=%zz&&x&s=7":                               {Root: leaf, Size: 7},
		"shoal:" + root + "?n=a+b":                                           {Root: leaf, Name: "a+b", Size: -1},
		"shoal:" + root + "?a=/ip4/10.0.0.1/tcp/1" + peerAddr:                {Root: leaf, Size: -1, Addrs: addrs("/ip4/10.0.0.1/tcp/1")},
		"shoal:" + root + "?p=nobody&p=" + peerID + "&a=/ip4/10.0.0.1/tcp/1": {Root: leaf, Size: -1, Addrs: addrs("/ip4/10.0.0.1/tcp/1")},
	} {
		if got, err := ParseLink(text); err != nil || !sameLink(got, want) {
			t.Errorf("%q gives %+v, error %v", text, got, err)
		}
	}
	many := Link{Root: leaf, Size: -1}
	for range 40 {
		many.Addrs = append(many.Addrs, addrs("/ip4/10.0.0.1/tcp/4001")...)
	}
	text := many.String()
	if n := strings.Count(text, "a="); n != 40 {
		t.Errorf("String wrote %d addresses", n)
	}
	if got, err := ParseLink(text); err != nil || len(got.Addrs) != addrsMax {
		t.Errorf("%d addresses, error %v", len(got.Addrs), err)
	}
}

func TestBadLinks(t *testing.T) {
	root := leaf.String()
	good := "shoal:" + root + "?n=a&s=1&a=/ip4/10.0.0.1/tcp/4001" + peerAddr
	for text, want := range map[string]string{
		"":                         "empty",
		" <> ":                     "empty",
		"shoal:":                   "no CID",
		"shoal:?n=a":               "no CID",
		"shoal:" + root[:40]:       "cut short",
		"shoal:" + root + "x":      "60 characters",
		"magnet:?xt=urn:btih:123":  "begins neither",
		"https://example.org/x":    "begins neither",
		"hello":                    "not a CID",
		good + "&n=b":              `"n" twice`,
		good + "&s=1":              `"s" twice`,
		"shoal:" + root + "?s=-1":  "number of bytes",
		"shoal:" + root + "?s=":    "number of bytes",
		"shoal:" + root + "?s=1e3": "number of bytes",
		"shoal:" + root + "?s=9223372036854775808":              "number of bytes",
		"shoal:" + root + "?n=":                                 "empty",
		"shoal:" + root + "?n=..":                               "another folder",
		"shoal:" + root + "?n=a%2Fb":                            "slash",
		"shoal:" + root + "?n=a%00":                             "control",
		"shoal:" + root + "?n=a%1b[2J":                          "control",
		"shoal:" + root + "?n=a%2":                              "cut short",
		"shoal:" + root + "?n=a%zz":                             "percent-encoded",
		"shoal:" + root + "?a=":                                 "malformed",
		"shoal:" + root + "?a=10.0.0.1:4001":                    "malformed",
		"shoal:" + root + "?a=/ip4/10.0.0.1/tcp/4001":           "/p2p/",
		"shoal:" + root + "?p=12D3Koo&a=/ip4/10.0.0.1/tcp/4001": "peer",
		good[:len(good)-8]:                                      "cut short",
		good + "&n=" + strings.Repeat("n", 9000):                "more than 8192",
	} {
		_, err := ParseLink(text)
		if err == nil {
			t.Errorf("%q: no error", text)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %q does not mention %q", text, err, want)
		}
		if len(err.Error()) > 300 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
			t.Errorf("error %q is long or has control characters", err)
		}
	}
}

func drawLink(t *rapid.T) Link {
	name := rapid.StringN(0, 20, 60).Filter(func(s string) bool { return s == "" || CheckName(s, "") == nil }).Draw(t, "name")
	l := Link{Root: drawCID(t), Name: name, Size: rapid.Int64Range(-1, 1<<62).Draw(t, "size")}
	for range rapid.IntRange(0, webMax).Draw(t, "seeds") {
		l.Web = append(l.Web, rapid.SampledFrom([]string{"https://example.org/a%20b?x=1&y=2", "http://[::1]:8080/", "https://a.example/ä+b"}).Draw(t, "web"))
	}
	for range rapid.IntRange(0, 5).Draw(t, "addrs") {
		l.Addrs = append(l.Addrs, addrs(rapid.SampledFrom([]string{"/ip4/127.0.0.1/tcp/1", "/ip6/::1/udp/9/quic-v1",
			"/dns/a-b.example/tcp/65535", "/ip4/1.2.3.4/tcp/5" + peerAddr + "/p2p-circuit"}).Draw(t, "addr"))...)
	}
	return l
}

func TestLinkRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLink(t)
		text := l.String()
		if i := strings.IndexFunc(text, func(r rune) bool { return r > 0x7e || r <= ' ' || strings.ContainsRune("'\"`$;|<>()*!#\\[]{}^,@", r) }); i >= 0 {
			t.Fatalf("%q has %q", text, text[i:i+1])
		}
		got, err := ParseLink(text)
		if err != nil || !sameLink(got, l) {
			t.Fatalf("%s gives %+v, error %v", text, got, err)
		}
		if got.String() != text {
			t.Fatalf("%s became %s", text, got.String())
		}
	})
}

// TestCutLinks: a link cut anywhere never gives another root, and never panics.
func TestCutLinks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLink(t)
		text := l.String()
		got, err := ParseLink(text[:rapid.IntRange(0, len(text)).Draw(t, "cut")])
		if err == nil && got.Root != l.Root {
			t.Fatalf("%s cut gives %+v", text, got)
		}
	})
}

func FuzzParseLink(f *testing.F) {
	f.Add("shoal:" + leaf.String() + "?n=a%20b&s=1&a=/ip4/10.0.0.1/tcp/4001" + peerAddr)
	f.Add("<" + leaf.String() + ">")
	f.Add("shoal://" + leaf.String() + "?a=/ip4/1.2.3.4/tcp/5" + peerAddr + "/p2p-circuit" + peerAddr)
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s)
		if err != nil {
			return
		}
		text := l.String()
		if len(text) > linkMax {
			return // escaping made it longer than what is read
		}
		back, err := ParseLink(text)
		if err != nil || !sameLink(back, l) || back.String() != text {
			t.Fatalf("%q gives %s, which gives %+v, error %v", s, text, back, err)
		}
	})
}
