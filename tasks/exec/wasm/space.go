package wasm

import (
	"errors"
	"hash/fnv"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	esys "github.com/tetratelabs/wazero/experimental/sys"
	wsys "github.com/tetratelabs/wazero/sys"
)

const (
	// openMax is how many files a guest may have open.
	openMax = 1024
	// entriesMax is how many files and folders it may make.
	entriesMax = 100_000
	// entryCost is what each of them takes of the room for output, in bytes, beside its content.
	entryCost = 64
)

// space is all the files that a guest sees: the inputs below /in, read-only, and what it writes below /out, which is a folder
// that is made when it is first needed. Both are reached through os.Root, so that no "..", no link and no race leads out of
// them. There are no links to be made.
type space struct {
	esys.UnimplementedFS
	guest *guest
	tree  map[string]*virtual // folders that only exist here, by path; nil before the first look
	files map[string]string   // inputs by path below "in": the local path
	out   *os.Root
	ins   map[string]*os.Root // of folders among the inputs
	open  int
	made  int
}

// virtual is a folder of inputs' names.
type virtual struct{ entries []esys.Dirent }

func (s *space) close() {
	if s.out != nil {
		s.out.Close()
	}
	for _, r := range s.ins {
		r.Close()
	}
}

// look makes the tree of names on first use: most small tasks never open a file.
func (s *space) look() {
	if s.tree != nil {
		return
	}
	s.tree = map[string]*virtual{".": {}, "in": {}}
	s.files = make(map[string]string, len(s.guest.task.Inputs))
	s.ins = map[string]*os.Root{}
	dir := fs.ModeDir
	s.tree["."].entries = []esys.Dirent{{Name: "in", Type: dir, Ino: inode("in")}, {Name: "out", Type: dir, Ino: inode("out")}}
	for _, m := range s.guest.task.Inputs {
		name := path.Join("in", m.Name)
		s.files[name] = m.Path
		kind := fs.FileMode(0)
		if info, err := os.Stat(m.Path); err == nil && info.IsDir() {
			kind = dir
		}
		for child := name; child != "in"; child = path.Dir(child) {
			parent := path.Dir(child)
			known := s.tree[parent] != nil
			if !known {
				s.tree[parent] = &virtual{}
			}
			s.tree[parent].entries = append(s.tree[parent].entries, esys.Dirent{Name: path.Base(child), Type: kind, Ino: inode(child)})
			if kind = dir; known {
				break
			}
		}
	}
}

// inode makes a number for a path, since programs compare them.
func inode(p string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(p))
	return h.Sum64()>>1 | 1
}

// where finds what a path is: a virtual folder, a path below a root, or one input that is a file.
type where struct {
	path    string
	virtual *virtual
	root    *os.Root
	rest    string // below root
	file    string // the local path of an input
	out     bool
}

func (s *space) find(p string) (w where, errno esys.Errno) {
	s.guest.engine.breathe(1)
	s.look()
	p = path.Clean(strings.TrimLeft(p, "/"))
	if p == ".." || strings.HasPrefix(p, "../") {
		return w, esys.EPERM
	}
	w.path = p
	if w.virtual = s.tree[p]; w.virtual != nil {
		return w, 0
	}
	if p == "out" || strings.HasPrefix(p, "out/") {
		w.out, w.rest = true, "."
		if p != "out" {
			w.rest = p[len("out/"):]
		}
		w.root, errno = s.outRoot()
		return w, errno
	}
	for at := p; at != "." && at != "in"; at = path.Dir(at) {
		local, ok := s.files[at]
		switch {
		case !ok:
			continue
		case at == p && !isDir(local):
			w.file = local
			return w, 0
		case s.ins[at] == nil:
			r, err := os.OpenRoot(local)
			if err != nil {
				return w, errnoOf(err)
			}
			s.ins[at] = r
		}
		w.root, w.rest = s.ins[at], "."
		if at != p {
			w.rest = p[len(at)+1:]
		}
		return w, 0
	}
	return w, esys.ENOENT
}

func isDir(local string) bool {
	info, err := os.Stat(local)
	return err == nil && info.IsDir()
}

// outRoot makes the folder for output.
func (s *space) outRoot() (*os.Root, esys.Errno) {
	if s.out != nil {
		return s.out, 0
	}
	dir := filepath.Join(s.guest.task.Dir, "out")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errnoOf(err)
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, errnoOf(err)
	}
	s.out = r
	return r, 0
}

// OpenFile implements FS.
func (s *space) OpenFile(p string, flag esys.Oflag, perm fs.FileMode) (esys.File, esys.Errno) {
	w, errno := s.find(p)
	writes := flag&(esys.O_RDWR|esys.O_WRONLY|esys.O_CREAT|esys.O_TRUNC|esys.O_APPEND) != 0
	switch {
	case errno != 0:
		if errno == esys.ENOENT && flag&esys.O_CREAT != 0 {
			return nil, esys.EROFS
		}
		return nil, errno
	case s.open >= openMax:
		return nil, esys.EAGAIN
	case w.virtual != nil:
		if writes {
			return nil, esys.EISDIR
		}
		return s.openFolder(w), 0
	case !w.out && writes:
		return nil, esys.EROFS
	}
	return s.openReal(w, flag, perm)
}

func (s *space) openReal(w where, flag esys.Oflag, perm fs.FileMode) (esys.File, esys.Errno) {
	info, err := s.stat(w)
	isNew := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !(isNew && flag&esys.O_CREAT != 0):
		return nil, errnoOf(err)
	case err == nil && flag&esys.O_CREAT != 0 && flag&esys.O_EXCL != 0:
		return nil, esys.EEXIST
	case err == nil && info.IsDir():
		if flag&(esys.O_RDWR|esys.O_WRONLY|esys.O_TRUNC) != 0 {
			return nil, esys.EISDIR
		}
		return s.openFolder(w), 0
	case err == nil && !info.Mode().IsRegular():
		return nil, esys.EPERM // no pipe, no device
	case flag&esys.O_DIRECTORY != 0:
		return nil, esys.ENOTDIR
	}
	if isNew {
		if errno := s.entry(); errno != 0 {
			return nil, errno
		}
	} else if flag&esys.O_TRUNC != 0 {
		s.guest.spend(-info.Size())
	}
	f, err := s.openOS(w, osFlags(flag), perm)
	if err != nil {
		return nil, errnoOf(err)
	}
	s.open++
	o := &file{space: s, where: w, f: f, append: flag&esys.O_APPEND != 0, writes: flag&(esys.O_RDWR|esys.O_WRONLY) != 0}
	o.to, o.stat = o.seekTo, o.look
	return o, 0
}

func (s *space) openFolder(w where) *folder {
	s.open++
	d := &folder{space: s, where: w}
	d.to, d.stat = d.seekTo, d.look
	return d
}

func (s *space) openOS(w where, flag int, perm fs.FileMode) (*os.File, error) {
	if w.file != "" {
		return os.Open(w.file)
	}
	return w.root.OpenFile(w.rest, flag, perm&0o777|0o600)
}

// stat follows links, as far as they stay inside.
func (s *space) stat(w where) (fs.FileInfo, error) {
	if w.file != "" {
		return os.Stat(w.file)
	}
	return w.root.Stat(w.rest)
}

// entry takes the price of a new file or folder.
func (s *space) entry() esys.Errno {
	if s.made >= entriesMax {
		return esys.EPERM
	}
	s.made++
	s.guest.spend(entryCost)
	return 0
}

// osFlags are those of os.OpenFile. Appending is done here, by place.
func osFlags(flag esys.Oflag) int {
	f := os.O_RDONLY
	switch {
	case flag&esys.O_RDWR != 0:
		f = os.O_RDWR
	case flag&esys.O_WRONLY != 0:
		f = os.O_RDWR // what is written may be looked at
	}
	if flag&esys.O_CREAT != 0 {
		f |= os.O_CREATE
	}
	if flag&esys.O_EXCL != 0 {
		f |= os.O_EXCL
	}
	if flag&esys.O_TRUNC != 0 {
		f |= os.O_TRUNC
	}
	return f
}

// Stat implements FS.
func (s *space) Stat(p string) (wsys.Stat_t, esys.Errno) {
	w, errno := s.find(p)
	switch {
	case errno != 0:
		return wsys.Stat_t{}, errno
	case w.virtual != nil:
		return folderStat(w.path), 0
	}
	info, err := s.stat(w)
	if err != nil {
		return wsys.Stat_t{}, errnoOf(err)
	}
	return wsys.NewStat_t(info), 0
}

// Lstat implements FS.
func (s *space) Lstat(p string) (wsys.Stat_t, esys.Errno) {
	w, errno := s.find(p)
	if errno != 0 || w.root == nil {
		return s.Stat(p)
	}
	info, err := w.root.Lstat(w.rest)
	if err != nil {
		return wsys.Stat_t{}, errnoOf(err)
	}
	return wsys.NewStat_t(info), 0
}

func folderStat(p string) wsys.Stat_t {
	return wsys.Stat_t{Ino: inode(p), Mode: fs.ModeDir | 0o555, Nlink: 1}
}

// Readlink implements FS, for links among the inputs.
func (s *space) Readlink(p string) (string, esys.Errno) {
	w, errno := s.find(p)
	if errno != 0 || w.root == nil {
		return "", esys.EINVAL
	}
	to, err := w.root.Readlink(w.rest)
	return to, errnoOf(err)
}

// change finds a path that is to be changed.
func (s *space) change(p string) (where, esys.Errno) {
	w, errno := s.find(p)
	switch {
	case errno != 0 && errno != esys.ENOENT:
		return w, errno
	case !w.out:
		return w, esys.EROFS
	case w.rest == ".":
		return w, esys.EPERM
	}
	return w, 0
}

// Mkdir implements FS.
func (s *space) Mkdir(p string, perm fs.FileMode) esys.Errno {
	w, errno := s.change(p)
	if errno == esys.EPERM {
		return esys.EEXIST // /out itself
	}
	if errno != 0 {
		return errno
	}
	if errno := s.entry(); errno != 0 {
		return errno
	}
	return errnoOf(w.root.Mkdir(w.rest, perm&0o777|0o700))
}

// Chmod implements FS.
func (s *space) Chmod(p string, perm fs.FileMode) esys.Errno {
	w, errno := s.change(p)
	if errno != 0 {
		return errno
	}
	return errnoOf(w.root.Chmod(w.rest, perm&0o777|0o600))
}

// Rename implements FS.
func (s *space) Rename(from, to string) esys.Errno {
	f, errno := s.change(from)
	if errno != 0 {
		return errno
	}
	t, errno := s.change(to)
	if errno != 0 {
		return errno
	}
	back := s.worth(t)
	if err := f.root.Rename(f.rest, t.rest); err != nil {
		return errnoOf(err)
	}
	s.guest.spend(-back)
	return 0
}

// worth is how much room removing a file gives back: nothing while any file is open, since it may be that one.
func (s *space) worth(w where) int64 {
	if s.open > 0 {
		return 0
	}
	info, err := w.root.Lstat(w.rest)
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

// Rmdir implements FS.
func (s *space) Rmdir(p string) esys.Errno {
	w, errno := s.change(p)
	if errno != 0 {
		return errno
	}
	info, err := w.root.Lstat(w.rest)
	switch {
	case err != nil:
		return errnoOf(err)
	case !info.IsDir():
		return esys.ENOTDIR
	}
	return errnoOf(w.root.Remove(w.rest))
}

// Unlink implements FS.
func (s *space) Unlink(p string) esys.Errno {
	w, errno := s.change(p)
	if errno != 0 {
		return errno
	}
	if info, err := w.root.Lstat(w.rest); err == nil && info.IsDir() {
		return esys.EISDIR
	}
	back := s.worth(w)
	if err := w.root.Remove(w.rest); err != nil {
		return errnoOf(err)
	}
	s.guest.spend(-back)
	return 0
}

// Link implements FS: there are none.
func (s *space) Link(_, _ string) esys.Errno { return esys.EPERM }

// Symlink implements FS: there are none, so that whoever collects the output meets none.
func (s *space) Symlink(_, _ string) esys.Errno { return esys.EPERM }

// Utimens implements FS: times are not part of a result.
func (s *space) Utimens(p string, _, _ int64) esys.Errno {
	_, errno := s.change(p)
	return errno
}

// errnoOf turns an error into its number. One without is a path that leads out of a root.
func errnoOf(err error) esys.Errno {
	if err == nil {
		return 0
	}
	errno := esys.UnwrapOSError(err)
	var pe *fs.PathError
	if errno == esys.EIO && errors.As(err, &pe) {
		return esys.EPERM
	}
	return errno
}

func sorted(entries []esys.Dirent) []esys.Dirent {
	return slices.SortedFunc(slices.Values(entries), func(a, b esys.Dirent) int { return strings.Compare(a.Name, b.Name) })
}
