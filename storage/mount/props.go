package mount

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/net/webdav"
)

// Bounds of the properties that clients invent, in bytes of names and values.
const (
	propsOfMax  = 32 << 10 // of one file or folder
	propsMax    = 8 << 20  // of all
	propsLine   = 4 * propsOfMax
	propsLogMin = 1 << 20 // a log of less is never rewritten
)

var errPropsFull = errors.New("no more properties can be kept")

// propSet are the dead properties of one file or folder. It is not changed once it is in a store.
type propSet map[xml.Name]webdav.Property

func (s propSet) size() (n int) {
	for name, p := range s {
		n += len(name.Space) + len(name.Local) + len(p.Lang) + len(p.InnerXML)
	}
	return n
}

// propStore keeps dead properties by path, in memory and, if it has a file, in a log of JSON lines beside it. They are
// this peer's alone: the pool's files have no place for them, and what matters of them to others (times) goes there.
// Nobody waits for the disk's cache: what a crash costs are a few of them.
type propStore struct {
	file string
	log  *slog.Logger

	mu     sync.Mutex
	byPath map[string]propSet
	size   int
	logged int64 // bytes of the file
}

// propLine is a line of the log: what a path has from then on.
type propLine struct {
	Path  string     `json:"path"`
	Props []propJSON `json:"props,omitempty"` // none: it has none any more
}

type propJSON struct {
	Space string `json:"ns"`
	Local string `json:"name"`
	Lang  string `json:"lang,omitempty"`
	Value string `json:"xml"`
}

// openProps reads what the file has. If it cannot be used, properties are kept in memory, and the log says so.
func openProps(file string, log *slog.Logger) *propStore {
	s := &propStore{file: file, log: log, byPath: make(map[string]propSet)}
	if file == "" {
		return s
	}
	if err := s.read(); err != nil {
		s.giveUp(err)
		return s
	}
	s.rewrite()
	return s
}

func (s *propStore) giveUp(err error) {
	s.log.Warn("webdav: properties are not kept over a restart", "err", err)
	s.file = ""
}

func (s *propStore) read() error {
	f, err := os.Open(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, propsLine)
	for lines.Scan() {
		s.replay(lines.Bytes())
	}
	return lines.Err()
}

// replay applies a line. One that cannot be read is the end of a log that was cut off, or somebody's edit: it is skipped.
func (s *propStore) replay(line []byte) {
	var l propLine
	if json.Unmarshal(line, &l) != nil || l.Path == "" {
		return
	}
	set := make(propSet, len(l.Props))
	for _, p := range l.Props {
		name := xml.Name{Space: p.Space, Local: p.Local}
		set[name] = webdav.Property{XMLName: name, Lang: p.Lang, InnerXML: []byte(p.Value)}
	}
	if checkProps(set) == nil {
		_ = s.put(l.Path, set)
	}
}

// checkProps refuses a set that could not be sent as XML, or is too large.
func checkProps(set propSet) error {
	if set.size() > propsOfMax {
		return errPropsFull
	}
	for name, p := range set {
		if err := checkXML(fmt.Appendf(nil, "<%s xmlns=%q>%s</%s>", name.Local, "x", p.InnerXML, name.Local)); err != nil {
			return err
		}
	}
	return nil
}

// get returns the properties of what is at p; they must not be changed.
func (s *propStore) get(p string) propSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byPath[p]
}

// set replaces the properties of what is at p.
func (s *propStore) set(p string, set propSet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.put(p, set); err != nil {
		return err
	}
	s.append(p)
	return nil
}

// put changes what is in memory. The caller holds mu, or is alone.
func (s *propStore) put(p string, set propSet) error {
	size := s.size - s.byPath[p].size() + set.size()
	if len(s.byPath[p]) == 0 && len(set) > 0 {
		size += len(p)
	} else if len(set) == 0 && len(s.byPath[p]) > 0 {
		size -= len(p)
	}
	if size > propsMax && size > s.size {
		return errPropsFull
	}
	s.size = size
	if len(set) == 0 {
		delete(s.byPath, p)
	} else {
		s.byPath[p] = set
	}
	return nil
}

// at lists the paths of p and below that have properties.
func (s *propStore) at(p string) (out []string) {
	for q := range s.byPath {
		if q == p || below(q, p) {
			out = append(out, q)
		}
	}
	return out
}

// remove drops the properties of p and all below it.
func (s *propStore) remove(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.at(p) {
		_ = s.put(q, nil)
		s.append(q)
	}
}

// copy gives what is at to the properties of what is at from, and if deep all below.
func (s *propStore) copy(from, to string, deep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.at(from) {
		if q != from && !deep {
			continue
		}
		target := to + q[len(from):]
		if from == "/" {
			target = to + "/" + q[1:]
		}
		if err := s.put(target, maps.Clone(s.byPath[q])); err != nil {
			s.log.Warn("webdav: properties were not copied", "err", err)
			return
		}
		s.append(target)
	}
}

// move is copy, and then they are no longer at from.
func (s *propStore) move(from, to string) {
	s.copy(from, to, true)
	s.remove(from)
}

// append writes to the log what p has now. The caller holds mu.
func (s *propStore) append(p string) {
	if s.file == "" {
		return
	}
	f, err := os.OpenFile(s.file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		s.giveUp(err)
		return
	}
	line := s.line(p)
	_, err = f.Write(line)
	if err = errors.Join(err, f.Close()); err != nil {
		s.giveUp(err)
		return
	}
	if s.logged += int64(len(line)); s.logged > propsLogMin+4*int64(s.size) {
		s.rewrite()
	}
}

func (s *propStore) line(p string) []byte {
	l := propLine{Path: p}
	for name, prop := range s.byPath[p] {
		l.Props = append(l.Props, propJSON{name.Space, name.Local, prop.Lang, string(prop.InnerXML)})
	}
	line, err := json.Marshal(l)
	if err != nil {
		panic(fmt.Sprintf("mount: a property that is no JSON: %v", err)) // there is no such thing
	}
	return append(line, '\n')
}

// rewrite makes a new log of what there is. The caller holds mu, or is alone.
func (s *propStore) rewrite() {
	f, err := os.CreateTemp(filepath.Dir(s.file), filepath.Base(s.file)+".*")
	if err != nil {
		s.giveUp(err)
		return
	}
	w, logged := bufio.NewWriter(f), int64(0)
	for p := range s.byPath {
		n, _ := w.Write(s.line(p)) // Flush tells
		logged += int64(n)
	}
	err = errors.Join(w.Flush(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		s.giveUp(err)
		return
	}
	s.logged = logged
}
