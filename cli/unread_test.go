package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shoal-os/shoal/node/api/client"
)

// fakePeer is a client of an API that answers as routes say.
func fakePeer(t *testing.T, routes map[string]http.HandlerFunc) *client.Client {
	t.Helper()
	mux := http.NewServeMux()
	for pattern, h := range routes {
		mux.HandleFunc(pattern, h)
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	c := client.New(t.TempDir(), client.Endpoint{Network: "tcp", Address: s.Listener.Addr().String()})
	t.Cleanup(c.Close)
	return c
}

// says answers with a text; one of events lasts as long as somebody follows them.
func says(text string, lasts bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
		if lasts {
			<-r.Context().Done()
		}
	}
}

// TestNobodyReadsTheOutput: as a local program would end for want of a reader, the job does.
func TestNobodyReadsTheOutput(t *testing.T) {
	var killed atomic.Int32
	c := fakePeer(t, map[string]http.HandlerFunc{
		"POST /v1/jobs":     says("event: done\ndata: {\"id\":\"abc\",\"tasks\":2}\n\n", false),
		"GET /v1/jobs/logs": says("event: output\ndata: {\"stream\":\"stdout\",\"data\":\"eAo=\"}\n\n", true),
		"GET /v1/jobs/watch": says("event: job\ndata: {\"job\":{\"id\":\"abc\",\"state\":\"running\",\"tasks\":2},"+
			"\"closed\":[{\"task\":0,\"state\":\"done\"}]}\n\n", true),
		"GET /v1/jobs/results": says("{\"task\":0,\"state\":\"done\",\"stdout\":{\"size\":2,\"inline\":\"eAo=\"}}\n{\"end\":true}\n", false),
		"POST /v1/jobs/kill": func(w http.ResponseWriter, r *http.Request) {
			killed.Add(1)
			says("{}", false)(w, r)
		},
	})
	a := &app{out: full{syscall.EPIPE}, err: io.Discard, env: func(string) (string, bool) { return "", false }}
	words := []string{"yes"}
	for name, do := range map[string]func() error{
		"run": func() error {
			return a.runOne(t.Context(), c, &runFlags{nothing: true, jobFlags: jobFlags{retries: -1}}, words)
		},
		"map": func() error {
			return a.mapAll(t.Context(), c, &mapFlags{count: 2, jobFlags: jobFlags{retries: -1}}, nil, words)
		},
	} {
		killed.Store(0)
		if code := exitCode(ownFailure(t.Context(), do())); code != exitSignal+int(syscall.SIGPIPE) || killed.Load() != 1 {
			t.Errorf("%s exits with %d, and the job was canceled %d times", name, code, killed.Load())
		}
	}
}
