package mount

import (
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
)

// sendPiece is how much is read of a file at a time: a leaf of a pool file, which is hashed as a whole for each read.
const sendPiece = 1 << 20

// pieces keeps buffers of sendPiece bytes for the next reader.
var pieces = sync.Pool{New: func() any { return new([sendPiece]byte) }}

// get answers with a file, or the ranges of it that are asked for. Nothing but the bytes comes from it: the type goes by
// the name, since looking at how a file begins might wake another peer.
func (f *face) get(w http.ResponseWriter, r *http.Request, p string) error {
	file, err := f.files.Open(r.Context(), p)
	switch {
	case errors.Is(err, ErrIsFolder) && r.Method == http.MethodHead:
		w.WriteHeader(http.StatusOK) // some clients ask in this way whether a folder is there
		return nil
	case errors.Is(err, ErrIsFolder):
		w.Header().Set("Allow", strings.ReplaceAll(f.allow(), " GET,", ""))
		return status(http.StatusMethodNotAllowed, "this is a folder: open the address as a network drive (WebDAV)")
	case errors.Is(err, ErrNotFolder):
		return fs.ErrNotExist
	case err != nil:
		return err
	}
	defer file.Close()
	info := file.Info()
	h := w.Header()
	h.Set("Content-Type", typeOf(info.Name))
	h.Set("Cache-Control", "private, no-cache") // ask each time; the ETag makes it cheap
	if tag := etagOf(info); tag != "" {
		h.Set("Etag", tag)
	}
	body := &source{at: file, size: info.Size}
	defer body.done()
	late := &lateWriter{ResponseWriter: w}
	http.ServeContent(late, r, "", info.ModTime, body)
	if body.err == nil {
		late.begin()
		return nil
	}
	if !late.begun {
		return body.err
	}
	f.opt.Log.Warn("webdav: a file could not be read to its end", "status", late.code, "err", body.err)
	panic(http.ErrAbortHandler) // cut off, so that nobody takes it for whole
}

// etagOf is the ETag of a file's bytes, or "".
func etagOf(i Info) string {
	if i.Folder || i.Tag == "" {
		return ""
	}
	return `"` + i.Tag + `"`
}

// types are those of names that systems without a table of their own do not know.
var types = map[string]string{
	".avi": "video/x-msvideo", ".epub": "application/epub+zip", ".flac": "audio/flac", ".gz": "application/gzip",
	".m4a": "audio/mp4", ".m4v": "video/mp4", ".md": "text/markdown; charset=utf-8", ".mka": "audio/x-matroska",
	".mkv": "video/x-matroska", ".mov": "video/quicktime", ".mp3": "audio/mpeg", ".mp4": "video/mp4", ".oga": "audio/ogg",
	".ogg": "audio/ogg", ".ogv": "video/ogg", ".opus": "audio/ogg", ".srt": "text/plain; charset=utf-8",
	".tar": "application/x-tar", ".txt": "text/plain; charset=utf-8", ".vtt": "text/vtt; charset=utf-8",
	".wav": "audio/wav", ".webm": "video/webm", ".zip": "application/zip",
}

// typeOf tells a file's type by its name alone.
func typeOf(name string) string {
	ext := strings.ToLower(path.Ext(name))
	if t := types[ext]; t != "" {
		return t
	}
	if t := mime.TypeByExtension(ext); t != "" {
		return t
	}
	return "application/octet-stream"
}

// source reads a file in order for http.ServeContent, and remembers why it could not.
type source struct {
	at    io.ReaderAt
	pos   int64
	size  int64
	buf   []byte // what was read beyond what was asked for
	space *[sendPiece]byte
	err   error
}

func (s *source) Read(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.pos >= s.size {
		return 0, io.EOF
	}
	if len(s.buf) == 0 {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.buf)
	s.buf = s.buf[n:]
	s.pos += int64(n)
	return n, nil
}

// fill reads the next piece, up to a multiple of sendPiece, so that no leaf is read for a few bytes twice.
func (s *source) fill() error {
	if s.space == nil {
		s.space = pieces.Get().(*[sendPiece]byte)
	}
	want := min(sendPiece-s.pos%sendPiece, s.size-s.pos)
	n, err := s.at.ReadAt(s.space[:want], s.pos)
	if n == 0 || err != nil && err != io.EOF {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		s.err = err
		return err
	}
	s.buf = s.space[:n]
	return nil
}

// done gives the buffer back.
func (s *source) done() {
	if s.space != nil {
		pieces.Put(s.space)
		s.space, s.buf = nil, nil
	}
}

func (s *source) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.pos
	case io.SeekEnd:
		offset += s.size
	}
	if offset < 0 {
		return 0, errors.New("mount: seek before the file")
	}
	if offset != s.pos {
		s.pos, s.buf = offset, nil
	}
	return offset, nil
}

// lateWriter sends the status with the first byte of the body, so that a file whose first byte cannot be had is answered
// with a failure.
type lateWriter struct {
	http.ResponseWriter
	code  int
	begun bool
}

func (w *lateWriter) WriteHeader(code int) { w.code = code }

func (w *lateWriter) begin() {
	if !w.begun {
		w.begun = true
		if w.code != 0 {
			w.ResponseWriter.WriteHeader(w.code)
		}
	}
}

func (w *lateWriter) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}
