package cli

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdFreePort puts an address on loopback that nobody listens on into a
// variable: freeport NAME
func cmdFreePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport NAME")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	ts.Check(l.Close())
}

// cmdFetch gets a URL into a file, once somebody answers there, and checks the
// status: fetch STATUS URL FILE [HEADER…]
func cmdFetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: fetch STATUS URL FILE [HEADER…]")
	}
	var resp *http.Response
	var err error
	if !eventually(func() bool {
		req, bad := http.NewRequest(http.MethodGet, args[1], nil)
		ts.Check(bad)
		for _, h := range args[3:] {
			name, value, _ := strings.Cut(h, ": ")
			if req.Header.Add(name, value); name == "Host" {
				req.Host = value
			}
		}
		resp, err = http.DefaultClient.Do(req)
		return err == nil
	}) {
		ts.Fatalf("%v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if got := fmt.Sprint(resp.StatusCode); got != args[0] {
		ts.Fatalf("%s answers %s: %s", args[1], resp.Status, body)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), body, 0o644))
}

// cmdWeb serves a folder over HTTP until the script ends, with ranges unless
// they are refused, and puts the URL into a variable: web NAME DIR [noranges]
func cmdWeb(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: web NAME DIR [noranges]")
	}
	files := http.FileServer(http.Dir(ts.MkAbs(args[1])))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(args) > 2 {
			r.Header.Del("Range")
		}
		files.ServeHTTP(w, r)
	}))
	ts.Defer(server.Close)
	ts.Setenv(args[0], server.URL)
}
