package storage

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

// CacheMaxDefault is how many bytes of opened roots are kept.
const CacheMaxDefault = 8 << 30

// The cache's folder has one folder for each root, whose modification time is
// when it was last used. In it lie the data of the store's record, or a copy for
// as long as somebody reads it.
const (
	cacheData = "data"
	cacheCopy = "copy"
)

// cacheDir makes the folder of a root in the cache, and notes its use.
func (s *Storage) cacheDir(root chunk.CID) (string, error) {
	dir := filepath.Join(s.cfg.Cache, root.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	now := time.Now()
	return dir, os.Chtimes(dir, now, now)
}

// cached reports that a record's bytes lie in the cache.
func (s *Storage) cached(i block.Info) bool {
	return i.State == block.Partial && strings.HasPrefix(i.Path, s.cfg.Cache+string(filepath.Separator))
}

// trimCache removes the roots that nobody reads and that were used longest ago
// until the rest fits. It is called when a root is closed.
func (s *Storage) trimCache() {
	if s.ctx.Err() != nil {
		return // closing: the next one does it
	}
	type held struct {
		root  chunk.CID
		dir   string
		bytes int64
		used  time.Time
	}
	var all []held
	var total int64
	for _, r := range s.store.Roots() {
		i := r.Info()
		if !s.cached(i) {
			continue
		}
		h := held{root: i.Root, dir: filepath.Dir(i.Path), bytes: min(max(i.Size, 0), int64(i.HaveLeaves)*chunk.LeafSize)}
		if fi, err := os.Stat(h.dir); err == nil {
			h.used = fi.ModTime()
		}
		total += h.bytes
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b held) int { return cmp.Or(a.used.Compare(b.used), a.root.Compare(b.root)) })
	for _, h := range all {
		if total <= s.cfg.CacheMax {
			return
		}
		if s.fillers.busy(h.root) {
			continue
		}
		if err := s.dropCached(h.root, h.dir); err != nil {
			s.log.Warn("a root stays in the cache", "root", h.root, "err", err)
			continue
		}
		total -= h.bytes
	}
}

// dropCached forgets a root whose bytes are in the cache, and removes them.
func (s *Storage) dropCached(root chunk.CID, dir string) error {
	release := s.fillers.hold(root)
	defer release()
	if err := s.store.Remove(root); err != nil {
		return err
	}
	s.unseed(root)
	return os.RemoveAll(dir)
}

// sweepCache removes what no record tells of: a crash left it, or a Get that
// took the root over.
func (s *Storage) sweepCache() {
	known := map[string]bool{}
	for _, r := range s.store.Roots() {
		if i := r.Info(); s.cached(i) {
			known[filepath.Base(filepath.Dir(i.Path))] = true
		}
	}
	entries, err := os.ReadDir(s.cfg.Cache)
	if err != nil {
		return // most peers have none
	}
	for _, e := range entries {
		if _, err := chunk.ParseCID(e.Name()); err != nil || known[e.Name()] {
			continue // not ours, or in use
		}
		if err := os.RemoveAll(filepath.Join(s.cfg.Cache, e.Name())); err != nil {
			s.log.Warn("something is left in the cache", "path", e.Name(), "err", err)
		}
	}
}
