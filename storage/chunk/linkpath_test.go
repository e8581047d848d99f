package chunk

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestLinkPaths(t *testing.T) {
	root := leaf.String()
	relayed := "/ip4/1.2.3.4/tcp/5" + peerAddr + "/p2p-circuit" + peerAddr
	for text, want := range map[string]string{
		root:                              "",
		root + "/":                        "",
		root + "/a/b":                     "a/b",
		root + "/a%20b/c%3F":              "a b/c?",
		"shoal:" + root + "/x?n=name&s=5": "x",
		"shoal://" + root + "/x":          "x",
		"shoal:" + root + "?n=name/x/y":   "x/y",
		"shoal:" + root + "?n=name&s=5/x": "x",
		"shoal:" + root + "?s=5&p=" + peerID + "&a=/ip4/1.2.3.4/tcp/5/a/b c.txt/": "a/b c.txt",
		"shoal:" + root + "?a=/ip4/1.2.3.4/tcp/5" + peerAddr + "/a":               "a",
		"shoal:" + root + "?a=" + relayed + "/a/p2p":                              "a/p2p",
		"shoal:" + root + "?a=" + relayed:                                         "",
		"shoal:" + root + "?p=" + peerID + "&a=/ip4/1.2.3.4/udp/5/quic-v1/song":   "song",
		"<shoal:" + root + "?n=name/x>":                                           "x",
		"shoal:" + root + "?w=https%3A//example.org/a/b":                          "",
	} {
		l, got, err := ParseLinkPath(text)
		if err != nil || got != want || l.Root != leaf {
			t.Errorf("%s gives %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "/", "/etc/passwd", "a/b", "https://example.org/x", "shoal:/x", root + "/%zz", root + "/a%00b",
		"shoal:" + root + "?a=/ip4/1.2.3.4/tcp/5/x"} {
		if l, path, err := ParseLinkPath(text); err == nil {
			t.Errorf("%q gives %v and %q", text, l, path)
		}
	}
}

// TestLinkPathsRoundTrip: whatever the link, what is put behind it comes back.
func TestLinkPathsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLink(t)
		if len(l.Addrs) == 0 {
			l.Web = nil // a path behind a URL is the URL's
		}
		path := rapid.SampledFrom([]string{"", "a", "a/b.txt", "p2p", "tcp/80"}).Draw(t, "path")
		text := l.String()
		if path != "" {
			text += "/" + path
		}
		got, rest, err := ParseLinkPath(text)
		if len(l.Addrs) > 0 && path == "tcp/80" {
			return // an address may well go on like this
		}
		if err != nil || rest != path || !sameLink(got, l) {
			t.Fatalf("%s gives %v and %q, error %v", text, got, rest, err)
		}
	})
}

func TestWebSeeds(t *testing.T) {
	text := "shoal:" + leaf.String() + "?n=a&w=https%3A//example.org/a%2520b&w=http%3A//10.0.0.1/x"
	l, err := ParseLink(text)
	if err != nil || len(l.Web) != 2 || l.Web[0] != "https://example.org/a%20b" || l.String() != text {
		t.Fatalf("%v %v", l, err)
	}
	if l, err := ParseLink(text + strings.Repeat("&w=http%3A//example.org/", 10)); err != nil || len(l.Web) != webMax {
		t.Errorf("%d web seeds, %v", len(l.Web), err)
	}
	for bad, want := range map[string]string{
		"ftp://example.org/x":                               "not an http",
		"https:///x":                                        "not an http",
		"https:example.org":                                 "not an http",
		"file:///etc/passwd":                                "not an http",
		"https://me:secret@example.org/x":                   "name or password",
		"https://example.org/x#y":                           "fragment",
		"https://example.org/\x7f":                          "not a URL",
		"https://example.org/" + strings.Repeat("x", 3<<10): "more than",
	} {
		err := CheckWebSeed(bad)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.40s: %v", bad, err)
		}
	}
	if _, err := ParseLink("shoal:" + leaf.String() + "?w=ftp%3A//example.org/"); err == nil {
		t.Error("a link with an ftp web seed")
	}
}

func FuzzParseLinkPath(f *testing.F) {
	f.Add("shoal:" + leaf.String() + "/a%20b?n=a&w=https%3A//example.org/")
	f.Add("shoal:" + leaf.String() + "?p=" + peerID + "&a=/ip4/10.0.0.1/tcp/4001/x/y")
	f.Add(leaf.String() + "/x")
	f.Add("shoal:" + leaf.String() + "?n=a&a")
	f.Add("shoal:" + leaf.String() + "?a=/")
	f.Fuzz(func(t *testing.T, s string) {
		l, path, err := ParseLinkPath(s)
		if err != nil {
			return
		}
		if strings.HasPrefix(path, "/") && strings.Trim(path, "/") == "" || !l.Root.Defined() {
			t.Fatalf("%q gives %v and %q", s, l, path)
		}
	})
}
