package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/multiformats/go-multiaddr"
)

// copyProtocol carries one file and nothing else.
const copyProtocol = protocol.ID("/shoal/bench-copy/1")

// bareHost is libp2p with one transport and none of its services: what a stream costs at the least.
func bareHost(useQUIC bool, listen string) (host.Host, error) {
	opts := []libp2p.Option{libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.NoListenAddrs}
	if useQUIC {
		opts = append(opts, libp2p.Transport(quic.NewTransport))
	} else {
		opts = append(opts, libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(libp2ptls.ID, libp2ptls.New))
	}
	if listen != "" {
		addr := "/ip4/" + listen + "/tcp/0"
		if useQUIC {
			addr = "/ip4/" + listen + "/udp/0/quic-v1"
		}
		opts = append(opts, libp2p.ListenAddrStrings(addr))
	}
	return libp2p.New(opts...)
}

// p2pReceive is the receiving side of the bare libp2p stream, with the same pipeline as the plain TCP copy.
func p2pReceive(a roleArgs, notices chan<- notice) error {
	h, err := bareHost(a.QUIC, a.Listen)
	if err != nil {
		return err
	}
	defer h.Close()
	streams := make(chan network.Stream, 1)
	h.SetStreamHandler(copyProtocol, func(s network.Stream) { streams <- s })
	if len(h.Addrs()) == 0 {
		return errors.New("no listen address")
	}
	notices <- notice{Ready: fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID())}
	s := <-streams
	m := startMeter()
	n, sum, err := receive(s, a.Out)
	if err != nil {
		return err
	}
	r := m.stop(result{Bytes: n, Files: 1, Sum: sum})
	// The sender waits for this end of the stream, so that it does not close its host before the last byte has arrived; and
	// this side waits for its own end, so that its host's does not come first.
	if err := s.Close(); err != nil {
		return err
	}
	notices <- r
	<-a.finish
	return nil
}

func p2pSend(a roleArgs, notices chan<- notice) error {
	h, err := bareHost(a.QUIC, "")
	if err != nil {
		return err
	}
	defer h.Close()
	addr, err := multiaddr.NewMultiaddr(a.Addr)
	if err != nil {
		return err
	}
	info, err := peer.AddrInfoFromP2pAddr(addr)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := h.Connect(ctx, *info); err != nil {
		return err
	}
	s, err := h.NewStream(ctx, info.ID, copyProtocol)
	if err != nil {
		return err
	}
	m := startMeter()
	if err := send(s, a.Path); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, s); err != nil {
		return err
	}
	notices <- m.stop(result{Files: 1})
	return nil
}
