package piece

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder"
)

// tempPrefix begins the names of files that no batch has committed.
const tempPrefix = ".cut-"

// load reads what is on disk. whole reports that it is what an orderly end left.
func (s *Store) load() (whole bool, err error) {
	files, badMarks, err := s.readMarks()
	if err != nil {
		return false, err
	}
	s.marks = newMarks(s.fs, s.lockedMarks, files)
	opened, bad, err := s.loadPacks()
	if err != nil {
		return false, err
	}
	if err := s.cache.open(s); err != nil {
		return false, err
	}
	lost, packs, err := s.loadLarge()
	if err != nil {
		return false, err
	}
	for id := range s.aside {
		if !s.index.has(id) {
			delete(s.aside, id)
			s.marks.add(line("back %s", id))
		}
	}
	for id, l := range s.index.all() {
		s.charge(id, l)
	}
	for num := range packs { // so that the next start does not find them again
		if err := s.keepLive(num); err != nil {
			return false, err
		}
	}
	s.tellDamage(bad, badMarks)
	return opened.Read == 0 && badMarks == 0 && len(bad) == 0 && lost == 0, s.marks.sync()
}

// newMarks goes on from the files of earlier processes.
func newMarks(fs folder.FS, state func() []byte, files []folder.Info) *marks {
	m := &marks{fs: fs, state: state}
	for _, f := range files {
		if gen, err := strconv.ParseUint(f.Name, 16, 64); err == nil {
			m.gen = max(m.gen, gen)
		}
		m.stale = append(m.stale, marksDir+"/"+f.Name)
		m.size.Add(f.Size)
	}
	return m
}

func (s *Store) lockedMarks() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.allMarks()
}

// loadPacks fills the index, without counting. Of two frames of one piece the later counts, unless it is damaged.
func (s *Store) loadPacks() (o pack.Opened, bad []chunk.CID, err error) {
	s.packs, o, err = pack.Open(pack.Config{FS: s.fs, Dir: packsDir, Size: packSize(s.cfg.Quota)}, func(f pack.Frame, at pack.Loc) {
		known := s.index.has(f.ID)
		if f.Bad {
			if known {
				return
			}
			bad = append(bad, f.ID)
		}
		s.index.put(f.ID, loc{at, f.Length, f.Extent})
		if !f.Bad && len(bad) > 0 {
			bad = without(bad, f.ID)
		}
	})
	for _, id := range bad {
		a := aside{damaged, s.now().Unix()}
		s.aside[id] = a
		if s.marks != nil {
			s.marks.add(asideLine(id, a))
		}
	}
	return o, bad, err
}

func without(ids []chunk.CID, id chunk.CID) []chunk.CID {
	for i := range ids {
		if ids[i] == id {
			return append(ids[:i], ids[i+1:]...)
		}
	}
	return ids
}

// loadLarge compares the large pieces of the index with the files, and takes in what was being fetched. lost counts
// pieces whose file is not what it was; packs have frames whose file is gone.
func (s *Store) loadLarge() (lost int, packs map[uint32]bool, err error) {
	if s.roots, err = block.Open(filepath.Join(s.dir, recordsDir)); err != nil {
		return 0, nil, err
	}
	s.roots.SetFinder(s.view)
	infos, err := s.fs.List(largeDir)
	if err != nil {
		return 0, nil, err
	}
	packs = map[uint32]bool{}
	files, parts := map[chunk.CID]int64{}, map[chunk.CID]int64{}
	for _, f := range infos {
		stem, part := strings.CutSuffix(f.Name, block.PartialSuffix)
		id, parseErr := chunk.ParseCID(stem)
		switch {
		case strings.HasPrefix(f.Name, tempPrefix):
			err = errors.Join(err, s.fs.Remove(largeDir+"/"+f.Name))
		case parseErr != nil:
		case part:
			parts[id] = f.Size
		default:
			files[id] = f.Size
		}
	}
	for id, l := range s.index.all() {
		if id.IsRaw() {
			continue
		}
		size, there := files[id]
		delete(files, id)
		if !there || size != int64(l.size) {
			packs[l.at.Pack] = true
			lost += s.lose(id, there)
		}
	}
	return lost, packs, errors.Join(err, s.adoptParts(files, parts))
}

// lose notes that the file of a large piece is gone or has another size, and reports how many held pieces that was.
func (s *Store) lose(id chunk.CID, there bool) int {
	_, away := s.aside[id]
	if !there {
		s.index.remove(id) // its frame is waste
	} else if !away {
		a := aside{damaged, s.now().Unix()}
		s.aside[id] = a
		s.marks.add(asideLine(id, a))
	}
	if away {
		return 0
	}
	s.log.Warn("pool files: a piece is damaged", "piece", id, "file missing", !there)
	return 1
}

// adoptParts takes in what was being fetched: partials with their records, and files that no frame speaks for, which
// are worth what a later fetch finds in them.
func (s *Store) adoptParts(files, parts map[chunk.CID]int64) error {
	for id, size := range files {
		if err := s.fs.Rename(largeName(id), partName(id)); err != nil {
			return err
		}
		parts[id] = size
	}
	for _, r := range s.roots.Roots() {
		id := r.CID()
		held := s.index.has(id)
		i := r.Info()
		if _, there := parts[id]; there && !held && i.State == block.Partial && i.Path == s.path(largeName(id)) {
			s.setPartial(id, i.Size+recordCost)
			continue
		}
		if err := s.roots.Remove(id); err != nil {
			return err
		}
	}
	for id, size := range parts {
		if s.index.has(id) {
			if err := s.fs.Remove(partName(id)); err != nil {
				return err
			}
		} else if s.partial[id] == 0 {
			s.setPartial(id, size)
		}
	}
	return nil
}

// setPartial charges the room of an unfinished piece. The caller holds mu, or is alone.
func (s *Store) setPartial(id chunk.CID, size int64) {
	n := roundUp(size)
	s.sums.partial += n - s.partial[id]
	s.partial[id] = n
	if n == 0 {
		delete(s.partial, id)
	}
}

func largeName(id chunk.CID) string { return largeDir + "/" + id.String() }

func partName(id chunk.CID) string { return largeName(id) + block.PartialSuffix }

func (s *Store) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (s *Store) tellDamage(bad []chunk.CID, marks int) {
	for i, id := range bad {
		if i == 10 {
			s.log.Warn("pool files: more pieces are damaged", "pieces", len(bad)-i)
			break
		}
		s.log.Warn("pool files: a piece is damaged", "piece", id)
	}
	if marks > 0 {
		s.log.Warn("pool files: marks are damaged or torn", "lines", marks)
	}
}
