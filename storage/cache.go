package storage

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"time"

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

// cachedRoot is a root in the cache.
type cachedRoot struct {
	on    *shelf
	root  chunk.CID
	dir   string
	bytes int64
	used  time.Time
}

// inCache lists what a shelf has in the cache.
func (h *shelf) inCache() (out []cachedRoot) {
	for _, r := range h.store.Roots() {
		i := r.Info()
		if !h.cached(i) {
			continue
		}
		c := cachedRoot{on: h, root: i.Root, dir: filepath.Dir(i.Path), bytes: min(max(i.Size, 0), int64(i.HaveLeaves)*chunk.LeafSize)}
		if fi, err := os.Stat(c.dir); err == nil {
			c.used = fi.ModTime()
		}
		out = append(out, c)
	}
	return out
}

// trimCache removes the roots that nobody reads and that were used longest ago
// until the rest fits. It is called when a root is closed.
func (s *Storage) trimCache() {
	if s.ctx.Err() != nil {
		return // closing: the next one does it
	}
	all := s.shelf.inCache()
	if s.pieces != nil {
		all = append(all, s.pieces.inCache()...)
	}
	var total int64
	for _, c := range all {
		total += c.bytes
	}
	slices.SortFunc(all, func(a, b cachedRoot) int { return cmp.Or(a.used.Compare(b.used), a.root.Compare(b.root)) })
	for _, c := range all {
		if total <= s.cfg.CacheMax {
			return
		}
		if c.on.fillers.busy(c.root) {
			continue
		}
		if err := c.on.dropCached(c.root, c.dir); err != nil {
			s.log.Warn("a root stays in the cache", "root", c.root, "err", err)
			continue
		}
		total -= c.bytes
	}
}
