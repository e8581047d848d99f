package tree

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// Pin says that a peer keeps a copy of everything under a path.
type Pin struct {
	Peer peer.ID
	Path string
}

// pins are the pins of all peers by their records' keys.
type pins map[string]Pin

// PinsMax is how many pins a peer may have.
const PinsMax = 1024

// ErrPins says that there are too many pins already.
var ErrPins = errors.New("there are too many pins")

// Pin has this peer keep a copy of everything under a path, now or later, whatever other peers hold. Replaced
// versions are not kept for it. There need not be anything at the path yet. Pinning twice changes nothing.
func (t *Tree) Pin(ctx context.Context, path string) error {
	clean, err := cleanFor("pin", path)
	if err != nil {
		return err
	}
	value, err := proto.Marshal(&PinRecord{Path: clean})
	if err != nil {
		return fault("pin", clean, err)
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	key := pinKey(t.cfg.Self, clean)
	t.mu.RLock()
	_, had := t.pins[key]
	mine := 0
	for _, p := range t.pins {
		if p.Peer == t.cfg.Self {
			mine++
		}
	}
	t.mu.RUnlock()
	switch {
	case had:
		return nil
	case mine >= PinsMax:
		return fault("pin", clean, ErrPins)
	}
	return fault("pin", clean, t.write(ctx, []directory.Change{{Key: key, Value: value}}))
}

// Unpin takes a pin of this peer away; its copies stay until their space is needed. It is ErrNotExist if there is no
// such pin.
func (t *Tree) Unpin(ctx context.Context, path string) error {
	clean, err := cleanFor("unpin", path)
	if err != nil {
		return err
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	key := pinKey(t.cfg.Self, clean)
	t.mu.RLock()
	_, had := t.pins[key]
	t.mu.RUnlock()
	if !had {
		return fault("unpin", clean, ErrNotExist)
	}
	return fault("unpin", clean, t.write(ctx, []directory.Change{{Key: key, Delete: true}}))
}

// Pins returns the pins of all peers, in the order of their paths.
func (t *Tree) Pins() []Pin {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]Pin, 0, len(t.pins))
	for _, p := range t.pins {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Pin) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Peer, b.Peer))
	})
	return out
}

func pinKey(p peer.ID, path string) string {
	hash := paths.HashOf(path)
	return pinPrefix + p.String() + "/" + hex.EncodeToString(hash[:])
}

// decodePin reads a record of anybody. Only a peer itself may say what it keeps.
func decodePin(r *directory.Record) (Pin, error) {
	var m PinRecord
	if err := proto.Unmarshal(r.Value, &m); err != nil {
		return Pin{}, fmt.Errorf("decode pin: %w", err)
	}
	if err := paths.Check(m.Path); err != nil {
		return Pin{}, err
	}
	if r.Key != pinKey(r.Author, m.Path) {
		return Pin{}, errors.New("it is not the author's pin of that path")
	}
	return Pin{r.Author, m.Path}, nil
}

// applyPin is apply for the record of a pin. The caller holds mu.
func (t *Tree) applyPin(key string) {
	old, had := t.pins[key]
	var pin Pin
	err := errors.New("it is gone")
	if r, ok := t.cfg.Names.Get(key); ok {
		pin, err = decodePin(r)
	}
	switch {
	case err == nil && !had:
		t.pins[key] = pin
		if pin.Peer == t.cfg.Self {
			t.core.Pin(pin.Path)
		}
	case err != nil && had:
		delete(t.pins, key)
		if old.Peer == t.cfg.Self {
			t.core.Unpin(old.Path)
		}
	}
}
