package dht

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	rememberMax      = 200                 // peers in the file
	rememberAddrs    = 16                  // addresses of each
	rememberLife     = 90 * 24 * time.Hour // a peer not seen for so long is forgotten
	rememberSettle   = 3 * time.Second     // changes are gathered for so long before the file is written
	rememberFileMax  = 1 << 20             // bytes read of the file
	rememberFileMode = 0o600               // who one's peers are is nobody else's business
)

// remembered is one peer that spoke our protocol.
type remembered struct {
	info peer.AddrInfo
	seen time.Time
}

// memory is the peers of before, in a file. An empty path keeps them for this run only.
type memory struct {
	path string
	now  func() time.Time

	mu    sync.Mutex
	known map[peer.ID]remembered
	dirty bool

	changed chan struct{} // capacity 1
}

// newMemory loads the file. One that is missing or cannot be used counts as empty, and is replaced at the next change. now is
// the time of day; nil is time.Now.
func newMemory(path string, now func() time.Time) *memory {
	if now == nil {
		now = time.Now
	}
	m := &memory{path: path, now: now, known: make(map[peer.ID]remembered), changed: make(chan struct{}, 1)}
	if path == "" {
		return m
	}
	f, err := os.Open(path)
	if err != nil {
		return m
	}
	defer f.Close() // only read from, so a failing close loses nothing
	data, err := io.ReadAll(io.LimitReader(f, rememberFileMax+1))
	if err != nil {
		return m
	}
	peers, err := decodePeers(data)
	if err != nil {
		return m
	}
	for _, p := range peers {
		m.known[p.info.ID] = p
	}
	return m
}

// seen notes that a peer entered the table, and where it can be reached.
func (m *memory) seen(info peer.AddrInfo, now time.Time) {
	if len(info.Addrs) == 0 {
		return
	}
	info.Addrs = slices.Clone(info.Addrs[:min(len(info.Addrs), rememberAddrs)])
	m.mu.Lock()
	m.known[info.ID] = remembered{info: info, seen: now}
	if len(m.known) > 2*rememberMax {
		m.trim(now)
	}
	m.dirty = true
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// peers returns who is known, the latest first.
func (m *memory) peers() []peer.AddrInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []peer.AddrInfo
	for _, p := range m.newestFirst(m.now()) {
		out = append(out, p.info)
	}
	return out
}

// trim forgets all but the newest.
func (m *memory) trim(now time.Time) {
	kept := m.newestFirst(now)
	clear(m.known)
	for _, p := range kept {
		m.known[p.info.ID] = p
	}
}

// newestFirst returns at most rememberMax peers, without those not seen for long.
func (m *memory) newestFirst(now time.Time) []remembered {
	var out []remembered
	for _, p := range m.known {
		if now.Sub(p.seen) < rememberLife {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b remembered) int {
		return cmp.Or(b.seen.Compare(a.seen), cmp.Compare(a.info.ID, b.info.ID))
	})
	return out[:min(len(out), rememberMax)]
}

// run writes the file some seconds after each change, until ctx ends. Failures wait for the next change: the file is a
// convenience.
func (m *memory) run(ctx context.Context) {
	timer := time.NewTimer(rememberSettle)
	defer timer.Stop()
	for {
		select {
		case <-m.changed:
		case <-ctx.Done():
			return
		}
		timer.Reset(rememberSettle)
		select {
		case <-timer.C:
			_ = m.save(m.now())
		case <-ctx.Done():
			return
		}
	}
}

// save writes the file, if anything changed since it was written: whole or not at all.
func (m *memory) save(now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirty || m.path == "" {
		return nil
	}
	data, err := encodePeers(m.newestFirst(now))
	if err != nil {
		return fmt.Errorf("dht: remember peers: %w", err)
	}
	if err := replaceFile(m.path, data); err != nil {
		return fmt.Errorf("dht: remember peers: %w", err)
	}
	m.dirty = false
	return nil
}

// replaceFile puts data in place of the file's content. It does not wait for the disk: after a power cut an old or a
// missing list is as good.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(rememberFileMode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// peersFile is the file's JSON.
type peersFile struct {
	Peers []peerEntry `json:"peers"`
}

type peerEntry struct {
	ID    string    `json:"id"`
	Addrs []string  `json:"addrs"`
	Seen  time.Time `json:"seen"`
}

func encodePeers(peers []remembered) ([]byte, error) {
	file := peersFile{Peers: []peerEntry{}}
	for _, p := range peers {
		e := peerEntry{ID: p.info.ID.String(), Seen: p.seen.UTC().Truncate(time.Second)}
		for _, a := range p.info.Addrs {
			e.Addrs = append(e.Addrs, a.String())
		}
		file.Peers = append(file.Peers, e)
	}
	data, err := json.MarshalIndent(file, "", " ")
	return append(data, '\n'), err
}

// decodePeers reads the file's JSON. Entries that make no sense are left out one by one, so that a hand's slip loses
// one peer and not all; what is beyond the bounds is cut off.
func decodePeers(data []byte) ([]remembered, error) {
	if len(data) > rememberFileMax {
		return nil, fmt.Errorf("dht: peers file is larger than %d bytes", rememberFileMax)
	}
	var file peersFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("dht: peers file: %w", err)
	}
	var out []remembered
	for _, e := range file.Peers {
		if len(out) == rememberMax {
			break
		}
		if p, ok := decodePeer(e); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

func decodePeer(e peerEntry) (remembered, bool) {
	id, err := peer.Decode(e.ID)
	if err != nil {
		return remembered{}, false
	}
	p := remembered{info: peer.AddrInfo{ID: id}, seen: e.Seen}
	for _, s := range e.Addrs[:min(len(e.Addrs), rememberAddrs)] {
		if a, err := multiaddr.NewMultiaddr(s); err == nil {
			p.info.Addrs = append(p.info.Addrs, a)
		}
	}
	return p, len(p.info.Addrs) > 0
}
