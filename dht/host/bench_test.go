package host

import (
	"io"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

// BenchmarkBulkStream moves bytes one way over one stream, both ends in this process: the figures behind the dial order.
func BenchmarkBulkStream(b *testing.B) {
	for _, c := range []struct {
		name string
		code int
	}{{"tcp", ma.P_TCP}, {"quic", ma.P_UDP}} {
		b.Run(c.name, func(b *testing.B) { benchmarkBulk(b, c.code) })
	}
}

func benchmarkBulk(b *testing.B, code int) {
	const sink = "/shoal/test/sink/1"
	newHost := func() *Host {
		h, err := New(Config{Identity: identity(b), Listen: []string{tcpAny, quicAny}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = h.Close() })
		return h
	}
	from, to := newHost(), newHost()
	done := make(chan int64, 1)
	to.SetStreamHandler(sink, func(s network.Stream) {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 1<<20))
		_ = s.Close()
		done <- n
	})
	if err := from.Connect(b.Context(), only(to, code)); err != nil {
		b.Fatal(err)
	}
	s, err := from.NewStream(b.Context(), to.ID(), sink)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(buf)))
	var sent int64
	for b.Loop() {
		n, err := s.Write(buf)
		if err != nil {
			b.Fatal(err)
		}
		sent += int64(n)
	}
	if err := s.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if got := <-done; got != sent {
		b.Fatalf("sent %d bytes, %d arrived", sent, got)
	}
}
