package main

import (
	"context"
	"errors"
	"os"
	"runtime/pprof"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
)

// These roles are peers inside this program, started as any embedding program would. They measure what the command line
// cannot show by itself: an import without the start of its process, and where the time goes.

func startPeer(a roleArgs) (*node.Node, error) {
	return node.Start(context.Background(), node.Config{
		Home: a.Home, Listen: listenAddrs(a.Listen, bothTransports), Version: "bench",
	})
}

// peerImport shares a path and measures that alone.
func peerImport(a roleArgs, notices chan<- notice) (err error) {
	n, err := startPeer(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	stop, err := profileTo(a.Profile)
	if err != nil {
		return err
	}
	m := startMeter()
	s, err := n.Share(context.Background(), client.ShareRequest{Path: a.Path}, nil)
	r := m.stop(result{Bytes: s.Size, Files: s.Files})
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	notices <- r
	return nil
}

// peerSeed shares a path, says its link, and seeds until it is told that the measurement is over.
func peerSeed(a roleArgs, notices chan<- notice) (err error) {
	n, err := startPeer(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	s, err := n.Share(context.Background(), client.ShareRequest{Path: a.Path}, nil)
	if err != nil {
		return err
	}
	stop, err := profileTo(a.Profile)
	if err != nil {
		return err
	}
	m := startMeter()
	notices <- notice{Ready: s.Link}
	<-a.finish
	r := m.stop(result{Bytes: s.Size, Files: s.Files})
	if err := stop(); err != nil {
		return err
	}
	notices <- r
	return nil
}

// peerGet fetches a link.
func peerGet(a roleArgs, notices chan<- notice) (err error) {
	n, err := startPeer(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	stop, err := profileTo(a.Profile)
	if err != nil {
		return err
	}
	m := startMeter()
	g, err := n.Get(context.Background(), client.GetRequest{Link: a.Addr, Dest: a.Out}, nil)
	r := m.stop(result{Bytes: g.Fetched})
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	notices <- r
	return nil
}

// profileTo writes a processor profile of what happens until stop is called; with no path, nothing.
func profileTo(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
