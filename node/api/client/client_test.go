package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNoPeer(t *testing.T) {
	home := t.TempDir()
	if _, err := Open(home); !errors.Is(err, ErrNoPeer) {
		t.Errorf("empty home: %v", err)
	}
	// What a peer leaves behind when it is killed.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, e := range []Endpoint{
		{Network: "unix", Address: filepath.Join(home, "gone.sock")},
		{Network: "tcp", Address: l.Addr().String()},
	} {
		if err := e.Write(home); err != nil {
			t.Fatal(err)
		}
		c, err := Open(home)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrNoPeer) {
			t.Errorf("stale %s: %v", e, err)
		}
		c.Close()
	}
}

func TestEndpointFile(t *testing.T) {
	home := t.TempDir()
	want := Endpoint{Network: "tcp", Address: "127.0.0.1:1", Token: "t", PID: 7}
	if err := want.Write(home); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadEndpoint(home); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "{", `{"network":"udp"}`} {
		if err := os.WriteFile(filepath.Join(home, EndpointFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadEndpoint(home); KindOf(err) != KindHome {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestEvents(t *testing.T) {
	long := strings.Repeat("x", eventBytesMax+1)
	cases := []struct {
		name, in string
		want     []event
		err      error
	}{
		{"one", "event: done\ndata: {}\n\n", []event{{"done", []byte("{}")}}, io.EOF},
		{"comment, id and blank lines", ": hi\n\n\nid: 1\nevent:done\ndata:1\n\n", []event{{"done", []byte("1")}}, io.EOF},
		{"data in two lines", "data: a\ndata: b\n\n", []event{{"", []byte("a\nb")}}, io.EOF},
		{"carriage returns", "event: e\r\ndata: 1\r\n\r\n", []event{{"e", []byte("1")}}, io.EOF},
		{"cut off", "event: done\ndata: {", nil, io.ErrUnexpectedEOF},
		{"long line", "data: " + long, nil, errEventTooLong},
		{"many lines", strings.Repeat("data: "+long[:eventBytesMax/4]+"\n", 5), nil, errEventTooLong},
		{"nothing", "", nil, io.EOF},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newEventReader(strings.NewReader(c.in))
			for _, want := range c.want {
				got, err := r.next()
				if err != nil || got.Name != want.Name || string(got.Data) != string(want.Data) {
					t.Fatalf("got %q %q, %v", got.Name, got.Data, err)
				}
			}
			if _, err := r.next(); !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
		})
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte("event: progress\ndata: {\"done\":1}\n\nevent: done\ndata: {}\n\n"))
	f.Add([]byte("data\n:\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newEventReader(strings.NewReader(string(data)))
		for {
			e, err := r.next()
			if err != nil {
				return
			}
			if len(e.Data) > eventBytesMax+len(data) {
				t.Fatal("more than came in")
			}
			var out GetResult
			_, _ = handle(e, &out, func(Progress) {})
		}
	})
}

func TestErrorKinds(t *testing.T) {
	cause := context.DeadlineExceeded
	err := Wrap(KindNotFound, cause, "wait")
	if !errors.Is(err, cause) || KindOf(err) != KindNotFound || errors.Is(err, ErrNoPeer) {
		t.Errorf("%#v", err)
	}
	if Wrap(KindNotFound, nil, "") != nil {
		t.Error("a nil error became one")
	}
}

// failing is a source of bytes that breaks.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// What is wrong with the bytes to be sent is no fault of the peer.
func TestUploadOfWhatCannotBeRead(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer s.Close()
	c := New(t.TempDir(), Endpoint{Network: "tcp", Address: s.Listener.Addr().String()})
	defer c.Close()
	broken := errors.New("is a directory")
	if _, err := c.FileWrite(t.Context(), "/x", 0, failing{broken}); !errors.Is(err, broken) || KindOf(err) == KindLost {
		t.Errorf("%v (%s)", err, KindOf(err))
	}
}
