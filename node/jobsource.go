package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks/job"
)

const (
	// storesAtOnce is how many local files are stored at a time: each waits for disks and for another peer.
	storesAtOnce = 16
	// linesMax bounds the bytes of a list of lines.
	linesMax = 256 << 20
)

// sources finds the bytes that a request for a job names, and stores those that are on this machine only.
type sources struct {
	ctx   context.Context
	c     *circle
	store func(context.Context, io.Reader) (job.File, error)
	tell  func(client.Progress)

	mu          sync.Mutex
	done, total int64
	files       int
}

// named is a file with the name that tasks find it under. local is set, and file is not, as long as it is to be stored.
type named struct {
	name  string
	file  job.File
	local string
	size  int64
}

// one resolves a source that must be a single file.
func (s *sources) one(src client.JobSource) (job.File, error) {
	list, err := s.list("x", src)
	if err != nil {
		return job.File{}, err
	}
	if len(list) != 1 || list[0].name != "x" {
		return job.File{}, client.Errorf(client.KindInvalid, "name a file in it", "%s is a folder", sourceText(src))
	}
	err = s.keep(list)
	return list[0].file, err
}

// list resolves a source to files, under name or, if it is a folder, below it.
func (s *sources) list(name string, src client.JobSource) ([]named, error) {
	if err := oneSource(src); err != nil {
		return nil, err
	}
	switch {
	case src.Stored != nil:
		f, err := storedFile(*src.Stored)
		return []named{{name: name, file: f}}, err
	case src.Path != "":
		return s.pooled(name, src.Path)
	case src.File != "":
		return s.local(name, src.File)
	}
	f, err := s.store(s.ctx, bytes.NewReader(src.Text))
	return []named{{name: name, file: f}}, err
}

func oneSource(src client.JobSource) error {
	set := 0
	for _, is := range []bool{src.Path != "", src.File != "", src.Text != nil, src.Stored != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return client.Errorf(client.KindInvalid, "give one of path, file, text and stored", "a source of bytes names %d places", set)
	}
	return nil
}

func sourceText(src client.JobSource) string {
	switch {
	case src.Path != "":
		return src.Path
	case src.File != "":
		return src.File
	}
	return "it"
}

// pooled resolves a path of the pool.
func (s *sources) pooled(name, at string) (out []named, err error) {
	top, err := s.c.tree.Stat(at)
	switch {
	case err == nil && !top.IsFolder():
		return []named{{name: name, file: fileOfEntry(&top)}}, nil
	case errors.Is(err, tree.ErrNotExist) && strings.ContainsAny(at, "*?["):
		return s.matching(at)
	case errors.Is(err, tree.ErrNotExist):
		return nil, localInstead(at, err)
	case err != nil:
		return nil, fileError(err)
	}
	for e, err := range s.c.tree.Walk(top.Path) {
		if err != nil {
			return nil, fileError(err)
		}
		if e.Kind == tree.File {
			below := strings.TrimPrefix(strings.TrimPrefix(e.Path, top.Path), "/")
			out = append(out, named{name: path.Join(name, below), file: fileOfEntry(&e)})
		}
	}
	return out, nil
}

// localInstead tells somebody who meant a path of this machine how to write it.
func localInstead(at string, err error) error {
	if _, statErr := os.Stat(at); statErr == nil {
		return client.Errorf(client.KindNotFound, "a path that begins with / is the pool's; of this machine it is file:"+at, "%s: there is nothing at that path in the pool", at)
	}
	return fileError(err)
}

// matching resolves a pattern of the pool: what is in a folder, if only its last element is one, or else what is anywhere below.
func (s *sources) matching(at string) (out []named, err error) {
	first := strings.IndexAny(at, "*?[")
	dir := at[:strings.LastIndexByte(at[:first], '/')+1]
	pattern := at[len(dir):]
	if strings.Contains(pattern, "/") {
		for e, err := range s.c.tree.Find(dir, pattern) {
			if err != nil {
				return nil, fileError(err)
			}
			if e.Kind == tree.File {
				out = append(out, named{name: strings.TrimPrefix(e.Path, path.Clean(dir)+"/"), file: fileOfEntry(&e)})
			}
		}
		return out, nil
	}
	entries, err := s.c.tree.List(dir)
	if err != nil {
		return nil, fileError(err)
	}
	for i := range entries {
		ok, err := path.Match(pattern, entries[i].Name)
		if err != nil {
			return nil, client.Errorf(client.KindInvalid, "put a \\ before a [ that stands for itself", "%s: the pattern makes no sense", at)
		}
		if ok && entries[i].Kind == tree.File {
			out = append(out, named{name: entries[i].Name, file: fileOfEntry(&entries[i])})
		}
	}
	return out, nil
}

// local lists files of this machine.
func (s *sources) local(name, at string) (out []named, err error) {
	if err := absolute(at); err != nil {
		return nil, err
	}
	err = filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(p) // what a link leads to, if that is a file
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(at, p)
		if err != nil {
			return err
		}
		out = append(out, named{name: guestName(path.Join(name, filepath.ToSlash(rel))), local: p, size: info.Size()})
		return nil
	})
	if err != nil {
		return nil, fileError(err)
	}
	return out, nil
}

// guestName replaces what a guest's path may not hold on every system.
func guestName(name string) string {
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r == '\\' || r == ':' {
			return '_'
		}
		return r
	}, name), "_")
}

// keep stores those of the files that are on this machine only, several at a time.
func (s *sources) keep(lists ...[]named) error {
	s.mu.Lock()
	for _, list := range lists {
		for i := range list {
			if list[i].local != "" {
				s.total += list[i].size
				s.files++
			}
		}
	}
	s.mu.Unlock()
	g, ctx := errgroup.WithContext(s.ctx)
	g.SetLimit(storesAtOnce)
	for _, list := range lists {
		for i := range list {
			if f := &list[i]; f.local != "" {
				g.Go(func() error { return s.keepOne(ctx, f) })
			}
		}
	}
	return g.Wait()
}

func (s *sources) keepOne(ctx context.Context, f *named) error {
	r, err := os.Open(f.local)
	if err != nil {
		return fileError(err)
	}
	defer r.Close()
	if f.file, err = s.store(ctx, &countedReader{r: r, each: s.read}); err == nil {
		f.local = ""
	}
	return err
}

// read counts bytes that were stored.
func (s *sources) read(n int) {
	s.mu.Lock()
	s.done += int64(n)
	p := client.Progress{Phase: "storing", Done: s.done, Total: max(s.total, s.done), Files: s.files, Peers: 1}
	s.mu.Unlock()
	if s.tell != nil {
		s.tell(p)
	}
}

type countedReader struct {
	r    io.Reader
	each func(int)
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.each(n)
	return n, err
}

// lines reads the lines of a source that are not empty.
func (s *sources) lines(src client.JobSource) (out []string, err error) {
	r, err := s.reader(src)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	scan := bufio.NewScanner(io.LimitReader(r, linesMax))
	scan.Buffer(make([]byte, 0, 64<<10), job.ArgMax)
	for scan.Scan() {
		text := strings.TrimSuffix(scan.Text(), "\r")
		if !utf8.ValidString(text) {
			return nil, client.Errorf(client.KindInvalid, "", "line %d of %s is no text in UTF-8", len(out)+1, sourceText(src))
		}
		if text != "" {
			out = append(out, text)
		}
	}
	if errors.Is(scan.Err(), bufio.ErrTooLong) {
		return nil, client.Errorf(client.KindInvalid, "", "line %d of %s is longer than %d bytes", len(out)+1, sourceText(src), job.ArgMax)
	}
	return out, scan.Err()
}

// reader opens a single file.
func (s *sources) reader(src client.JobSource) (io.ReadCloser, error) {
	if src.Text != nil {
		return io.NopCloser(bytes.NewReader(src.Text)), nil
	}
	list, err := s.list("x", src)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 || list[0].name != "x" {
		return nil, client.Errorf(client.KindInvalid, "", "%s is a folder", sourceText(src))
	}
	if list[0].local != "" {
		f, err := os.Open(list[0].local)
		if err != nil {
			return nil, fileError(err)
		}
		return f, nil
	}
	r, _, err := s.c.readerOf(s.ctx, nil, list[0].file)
	return r, err
}

// readerOf reads bytes that stand in a result or are a file, from their beginning.
func (c *circle) readerOf(ctx context.Context, inline []byte, file job.File) (_ io.ReadCloser, size int64, err error) {
	if file.Size == 0 {
		return io.NopCloser(bytes.NewReader(inline)), int64(len(inline)), nil
	}
	r, err := c.tasks.OpenFile(ctx, file)
	if err != nil {
		return nil, 0, taskError(err)
	}
	return readFile{io.NewSectionReader(r, 0, file.Size), r}, file.Size, nil
}

// readFile is a file of the pool that is read from its beginning.
type readFile struct {
	io.Reader
	io.Closer
}

func fileOfEntry(e *tree.Entry) job.File { return jobFile(e.File) }

// jobFile is a file of the pool as a job names it.
func jobFile(f piece.File) job.File {
	out := job.File{Root: f.Root, Size: f.Size}
	if len(f.Pieces) == 1 && f.Pieces[0].ID == f.Root {
		return out
	}
	for _, p := range f.Pieces {
		out.Pieces = append(out.Pieces, job.Piece{ID: p.ID, Size: p.Size})
	}
	return out
}

// storedFile reads what JobStore answered.
func storedFile(f client.JobFile) (out job.File, err error) {
	if out.Root, err = chunk.ParseCID(f.Root); err != nil {
		return out, client.Wrap(client.KindInvalid, fmt.Errorf("a stored file: %w", err), "")
	}
	out.Size = f.Size
	for _, p := range f.Pieces {
		id, err := chunk.ParseCID(p.ID)
		if err != nil {
			return out, client.Wrap(client.KindInvalid, fmt.Errorf("a stored file: %w", err), "")
		}
		out.Pieces = append(out.Pieces, job.Piece{ID: id, Size: p.Size})
	}
	return out, nil
}

// storedShape is a stored file for the API.
func storedShape(f job.File) client.JobFile {
	out := client.JobFile{Root: f.Root.String(), Size: f.Size}
	for _, p := range f.Pieces {
		out.Pieces = append(out.Pieces, client.JobPiece{ID: p.ID.String(), Size: p.Size})
	}
	return out
}
