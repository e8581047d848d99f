package wasm

import (
	"errors"
	"io"
	"io/fs"
	"os"

	esys "github.com/tetratelabs/wazero/experimental/sys"
	wsys "github.com/tetratelabs/wazero/sys"
)

// seeker gives its method Seek to what embeds it. It is generic only because go vet takes any Seek of (int64, int) for
// io.Seeker's, which returns another kind of error.
type seeker[O ~int64] struct {
	to func(off O, whence int) (O, esys.Errno)
}

func (s seeker[O]) Seek(off O, whence int) (O, esys.Errno) { return s.to(off, whence) }

// file is an open file. Its place is kept here, so that what grows it is known before it does.
type file struct {
	base
	seeker[int64]
	space  *space
	where  where
	f      *os.File
	at     int64
	append bool
	writes bool
}

// base has what files and folders have in common, and the methods that a later version of the interface may add, a floor
// deeper than all that is here.
type base struct {
	absent
	stat func() (wsys.Stat_t, esys.Errno)
}

type absent struct{ esys.UnimplementedFile }

func (b *base) Stat() (wsys.Stat_t, esys.Errno) { return b.stat() }

func (b *base) Dev() (uint64, esys.Errno) {
	st, errno := b.stat()
	return st.Dev, errno
}

func (b *base) Ino() (wsys.Inode, esys.Errno) {
	st, errno := b.stat()
	return st.Ino, errno
}

func (f *file) IsDir() (bool, esys.Errno) { return false, 0 }

func (f *file) IsAppend() bool { return f.append }

func (f *file) SetAppend(on bool) esys.Errno {
	f.append = on
	return 0
}

func (f *file) look() (wsys.Stat_t, esys.Errno) {
	info, err := f.f.Stat()
	if err != nil {
		return wsys.Stat_t{}, errnoOf(err)
	}
	return wsys.NewStat_t(info), 0
}

func (f *file) Read(p []byte) (int, esys.Errno) {
	n, errno := f.Pread(p, f.at)
	f.at += int64(n)
	return n, errno
}

func (f *file) Pread(p []byte, off int64) (int, esys.Errno) {
	g := f.space.guest
	g.engine.breathe(1)
	if off < 0 {
		return 0, esys.EINVAL
	}
	n, err := f.f.ReadAt(p, off)
	if !f.where.out {
		g.read += int64(n)
	}
	if n > 0 || errors.Is(err, io.EOF) {
		return n, 0
	}
	return n, errnoOf(err)
}

func (f *file) seekTo(off int64, whence int) (int64, esys.Errno) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		off += f.at
	case io.SeekEnd:
		size, errno := f.size()
		if errno != 0 {
			return 0, errno
		}
		off += size
	default:
		return 0, esys.EINVAL
	}
	if off < 0 {
		return 0, esys.EINVAL
	}
	f.at = off
	return off, 0
}

func (f *file) size() (int64, esys.Errno) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, errnoOf(err)
	}
	return info.Size(), 0
}

func (f *file) Write(p []byte) (int, esys.Errno) {
	if f.append {
		size, errno := f.size()
		if errno != 0 {
			return 0, errno
		}
		f.at = size
	}
	n, errno := f.Pwrite(p, f.at)
	f.at += int64(n)
	return n, errno
}

func (f *file) Pwrite(p []byte, off int64) (int, esys.Errno) {
	switch {
	case !f.writes:
		return 0, esys.EBADF
	case off < 0 || off > 1<<62:
		return 0, esys.EINVAL
	}
	size, errno := f.size()
	if errno != 0 {
		return 0, errno
	}
	g := f.space.guest
	g.engine.breathe(1)
	g.spend(max(0, off+int64(len(p))-size))
	n, err := f.f.WriteAt(p, off)
	g.written += int64(n)
	return n, errnoOf(err)
}

func (f *file) Truncate(to int64) esys.Errno {
	switch {
	case !f.writes:
		return esys.EBADF
	case to < 0:
		return esys.EINVAL
	}
	size, errno := f.size()
	if errno != 0 {
		return errno
	}
	f.space.guest.spend(to - size)
	return errnoOf(f.f.Truncate(to))
}

// Sync does nothing: what an attempt leaves is read again at once, and after a crash there is no attempt.
func (f *file) Sync() esys.Errno { return 0 }

func (f *file) Datasync() esys.Errno { return 0 }

func (f *file) Utimens(_, _ int64) esys.Errno { return 0 }

func (f *file) Close() esys.Errno {
	f.space.open--
	return errnoOf(f.f.Close())
}

// folder is an open folder, whose entries are read when they are first asked for.
type folder struct {
	base
	seeker[int64]
	space *space
	where where
	list  []esys.Dirent
	at    int
	read  bool
}

func (d *folder) IsDir() (bool, esys.Errno) { return true, 0 }

func (d *folder) IsAppend() bool { return false }

func (d *folder) SetAppend(bool) esys.Errno { return esys.EISDIR }

func (d *folder) Read([]byte) (int, esys.Errno) { return 0, esys.EISDIR }

func (d *folder) Pread([]byte, int64) (int, esys.Errno) { return 0, esys.EISDIR }

func (d *folder) Write([]byte) (int, esys.Errno) { return 0, esys.EISDIR }

func (d *folder) Pwrite([]byte, int64) (int, esys.Errno) { return 0, esys.EISDIR }

func (d *folder) Truncate(int64) esys.Errno { return esys.EISDIR }

func (d *folder) look() (wsys.Stat_t, esys.Errno) {
	if d.where.virtual != nil {
		return folderStat(d.where.path), 0
	}
	info, err := d.space.stat(d.where)
	if err != nil {
		return wsys.Stat_t{}, errnoOf(err)
	}
	return wsys.NewStat_t(info), 0
}

func (d *folder) seekTo(off int64, whence int) (int64, esys.Errno) {
	if off != 0 || whence != io.SeekStart {
		return 0, esys.EINVAL
	}
	d.at, d.read = 0, false
	return 0, 0
}

func (d *folder) Readdir(n int) ([]esys.Dirent, esys.Errno) {
	if !d.read {
		list, err := d.entries()
		if err != nil {
			return nil, errnoOf(err)
		}
		d.list, d.at, d.read = sorted(list), 0, true
	}
	rest := d.list[d.at:]
	if n > 0 && n < len(rest) {
		rest = rest[:n]
	}
	d.at += len(rest)
	return rest, 0
}

func (d *folder) entries() ([]esys.Dirent, error) {
	if d.where.virtual != nil {
		return d.where.virtual.entries, nil
	}
	f, err := d.where.root.Open(d.where.rest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	out := make([]esys.Dirent, 0, len(list))
	for _, e := range list {
		var ino uint64
		if info, err := e.Info(); err == nil {
			ino = wsys.NewStat_t(info).Ino
		}
		out = append(out, esys.Dirent{Name: e.Name(), Type: e.Type() & (fs.ModeType), Ino: ino})
	}
	return out, nil
}

func (d *folder) Close() esys.Errno {
	d.space.open--
	return 0
}
