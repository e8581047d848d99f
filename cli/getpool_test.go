package cli

import (
	"net/http"
	"strings"
	"testing"
)

// TestLeftOutOfAGet: what a get from the pool could not put on this machine is named, as put names what it left out.
func TestLeftOutOfAGet(t *testing.T) {
	c := fakePeer(t, map[string]http.HandlerFunc{
		"GET /v1/id":         says("{}", false),
		"POST /v1/files/get": says("event: done\ndata: {\"path\":\"photos\",\"files\":1,\"skipped\":[\"/x/a:b: no name here\"]}\n\n", false),
	})
	home := t.TempDir()
	if err := c.Endpoint().Write(home); err != nil {
		t.Fatal(err)
	}
	var out, stderr strings.Builder
	if code := typed(t.Context(), strings.NewReader(""), &out, &stderr, "--home", home, "get", "/x"); code != exitOK {
		t.Fatalf("%d: %s", code, &stderr)
	}
	if out.String() != "photos\n" || !strings.Contains(stderr.String(), "left out: /x/a:b: no name here\n") {
		t.Errorf("%q, %q", &out, &stderr)
	}
}
