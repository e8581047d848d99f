package cli

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shoal-os/shoal/node/api/client"
)

// TestNoTicketIsNoTicketThatRanOut: why there is no ticket is said as it is.
func TestNoTicketIsNoTicketThatRanOut(t *testing.T) {
	c := fakePeer(t, map[string]http.HandlerFunc{
		"GET /v1/pool/events": says("event: pool\ndata: {\"seq\":1,\"kind\":\"watching\"}\n\n", true),
		"POST /v1/pool/invite": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"kind":"invalid","error":"not so long"}`)
		},
	})
	a := &app{out: io.Discard, err: io.Discard}
	for range 20 { // it was a race
		if err := a.awaitJoiners(t.Context(), c, inviteFlags{role: "member"}); client.KindOf(err) != client.KindInvalid || !strings.Contains(err.Error(), "not so long") {
			t.Fatal(err)
		}
	}
}
