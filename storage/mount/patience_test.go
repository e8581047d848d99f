package mount_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-os/shoal/storage/mount"
	"github.com/shoal-os/shoal/storage/mount/mounttest"
)

// pipes is a listener whose connections are pipes, so that they can be used in virtual time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// wire serves files over a pipe, and returns the client's end.
func wire(t *testing.T, files mount.FS) net.Conn {
	l := &pipes{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: mount.Handler(files, mount.Options{})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	client, there := net.Pipe()
	l.conns <- there
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func answer(t *testing.T, in *bufio.Reader) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// TestStalledUpload: a client that sends slowly is waited for, one that stops is given up.
func TestStalledUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := mounttest.NewFake()
		c := wire(t, fake)
		in := bufio.NewReader(c)
		send(t, c, "PUT /slow HTTP/1.1\r\nHost: pool\r\nContent-Length: 5\r\n\r\n")
		for i := range 5 {
			<-time.After(100 * time.Second)
			send(t, c, fmt.Sprint(i))
		}
		if resp := answer(t, in); resp.StatusCode != http.StatusCreated {
			t.Errorf("slow: %s", resp.Status)
		}
		<-time.After(time.Hour) // a connection may be used again after long
		send(t, c, "PUT /stalled HTTP/1.1\r\nHost: pool\r\nContent-Length: 5\r\n\r\n12")
		begun := time.Now()
		resp := answer(t, in)
		if resp.StatusCode != http.StatusBadRequest || time.Since(begun) != 2*time.Minute {
			t.Errorf("stalled: %s after %v", resp.Status, time.Since(begun))
		}
		if _, err := fake.Stat(t.Context(), "/stalled"); err == nil {
			t.Error("half a file is there")
		}
	})
}

// TestSlowCommit: when all has been sent, the client waits for as long as it takes.
func TestSlowCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := wire(t, slowCommit{mounttest.NewFake()})
		send(t, c, "PUT /f HTTP/1.1\r\nHost: pool\r\nContent-Length: 5\r\n\r\n12345")
		if resp := answer(t, bufio.NewReader(c)); resp.StatusCode != http.StatusCreated {
			t.Errorf("%s", resp.Status)
		}
	})
}

type slowCommit struct{ *mounttest.Fake }

// Put takes an hour once it has all the bytes.
func (f slowCommit) Put(ctx context.Context, p string, body io.Reader, at time.Time) (mount.Info, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return mount.Info{}, err
	}
	select {
	case <-time.After(time.Hour):
	case <-ctx.Done():
		return mount.Info{}, ctx.Err()
	}
	return f.Fake.Put(ctx, p, strings.NewReader(string(data)), at)
}

// TestPausedFilm: a player that pauses is waited for; one that forgot its connection is not.
func TestPausedFilm(t *testing.T) {
	for pause, whole := range map[time.Duration]bool{9 * time.Minute: true, 11 * time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			fake := mounttest.NewFake()
			const size = 3 << 20
			if _, err := fake.Put(t.Context(), "/f", strings.NewReader(strings.Repeat("x", size)), time.Now()); err != nil {
				t.Fatal(err)
			}
			c := wire(t, fake)
			in := bufio.NewReader(c)
			send(t, c, "GET /f HTTP/1.1\r\nHost: pool\r\n\r\n")
			resp := answer(t, in)
			n := int64(0)
			for {
				m, err := io.CopyN(io.Discard, resp.Body, 1<<20)
				if n += m; err != nil {
					break
				}
				<-time.After(pause)
			}
			if (n == size) != whole {
				t.Errorf("pausing for %v it got %d bytes", pause, n)
			}
		})
	}
}
