package main

import (
	"bytes"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-os/shoal/examples/render/fractal"
	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/tasks/exec"
)

func TestMain(m *testing.M) {
	exec.Child()
	os.Exit(m.Run())
}

// TestDrawnByTwo has a pool of two draw a small picture, and compares it with one drawn here.
func TestDrawnByTwo(t *testing.T) {
	ada, bob := start(t, "ada"), start(t, "bob")
	ticket, err := ada.Invite(t.Context(), client.InviteRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bob.Join(t.Context(), client.JoinRequest{Ticket: ticket.Ticket, Yes: true}, func(client.JoinQuestion) error { return nil }); err != nil {
		t.Fatal(err)
	}
	awaitBoth(t, ada)
	module, err := compile(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	peer := client.New("", ada.Endpoint())
	defer peer.Close()
	const width, height = 96, 60
	picture, workers, err := draw(t.Context(), peer, module, width, height, 12)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("bands drawn by each peer: %v", workers)
	here, err := fromPoints(fractal.Rows(width, height, 0, height), width, height)
	if err != nil {
		t.Fatal(err)
	}
	if n := different(picture, here); n > width*height/1000 {
		t.Errorf("%d of %d points are not what is drawn here", n, width*height)
	}
	file := filepath.Join(t.TempDir(), "picture.png")
	if err := save(file, picture); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(data, []byte("\x89PNG")) {
		t.Errorf("%.8q, %v", data, err)
	}
}

// different counts the points that differ by more than a shade: processors round differently, and WebAssembly as none of them.
func different(a, b image.Image) (n int) {
	for y := range a.Bounds().Dy() {
		for x := range a.Bounds().Dx() {
			p, q := a.At(x, y).(color.NRGBA), b.At(x, y).(color.NRGBA)
			if max(p.R, q.R)-min(p.R, q.R) > 2 || max(p.G, q.G)-min(p.G, q.G) > 2 || max(p.B, q.B)-min(p.B, q.B) > 2 {
				n++
			}
		}
	}
	return n
}

// awaitBoth waits until two members see each other.
func awaitBoth(t *testing.T, n *node.Node) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if p, err := n.Pool(t.Context()); err == nil && p.Totals.Members == 2 {
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("they never met")
		}
	}
}

// start starts a peer that only this machine reaches.
func start(t *testing.T, name string) *node.Node {
	t.Helper()
	home, err := os.MkdirTemp("", name) // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	n, err := node.Start(t.Context(), node.Config{Home: home, Name: name, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}
