package mount

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/webdav"
)

// Names of properties that are ours to answer, beside those of x/net/webdav.
var (
	propCreated   = xml.Name{Space: "DAV:", Local: "creationdate"}
	propLocks     = xml.Name{Space: "DAV:", Local: "lockdiscovery"}
	propSupported = xml.Name{Space: "DAV:", Local: "supportedlock"}
	propFree      = xml.Name{Space: "DAV:", Local: "quota-available-bytes"} // RFC 4331
	propUsed      = xml.Name{Space: "DAV:", Local: "quota-used-bytes"}
	propWinTime   = xml.Name{Space: "urn:schemas-microsoft-com:", Local: "Win32LastModifiedTime"} // MS-WDVME 2.2
	propSeconds   = xml.Name{Space: "DAV:", Local: "lastmodified"}                                // as ownCloud and rclone set it
)

// asked is what a PROPFIND wants to know.
type asked struct {
	all   bool // or just the names of all
	names map[xml.Name]bool
}

func (a asked) wants(n xml.Name) bool { return a.names[n] }

// parseAsked reads a PROPFIND's body, which has been checked. What it makes no sense of x/net/webdav refuses.
func parseAsked(body []byte) asked {
	a := asked{names: make(map[xml.Name]bool)}
	if len(body) == 0 {
		a.all = true
		return a
	}
	d := xml.NewDecoder(bytes.NewReader(body))
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return a
		}
		switch t := token.(type) {
		case xml.StartElement:
			depth++
			if depth == 2 && (t.Name.Local == "allprop" || t.Name.Local == "propname") {
				a.all = true
			} else if depth == 3 {
				a.names[t.Name] = true
			}
		case xml.EndElement:
			depth--
		}
	}
}

// propfind describes a file, or a folder and perhaps what it holds. x/net/webdav reads and writes the XML; it is shown a
// tree of one moment (see view), so that it finds nothing wrong once it has begun to answer.
func (f *face) propfind(w http.ResponseWriter, r *http.Request, p string) error {
	body, err := readXML(r, xmlMax)
	if err != nil {
		return err
	}
	info, there, err := f.stat(r, p)
	if err != nil {
		return err
	}
	if !there {
		return fs.ErrNotExist
	}
	v := &view{face: f, ctx: r.Context(), infos: map[string]Info{p: info}, asked: parseAsked(body), now: time.Now()}
	depth, err := depthOf(r, info)
	if err != nil {
		return err
	}
	if depth == "1" {
		if err := v.list(p); err != nil {
			return err
		}
	}
	if v.asked.wants(propFree) || v.asked.wants(propUsed) {
		if v.space, err = f.files.Space(r.Context()); err != nil {
			f.opt.Log.Debug("webdav: it is not known how much space there is", "err", err)
			delete(v.asked.names, propFree) // so that they are answered as not there
			delete(v.asked.names, propUsed)
		}
	}
	f.serveProps(w, r, p, v, body, depth)
	return nil
}

// depthOf is how far a PROPFIND goes. All there is below a folder is refused, as RFC 4918 section 9.1 allows: it might
// be a million files for one careless request.
func depthOf(r *http.Request, info Info) (string, error) {
	switch depth := strings.ToLower(r.Header.Get("Depth")); depth {
	case "0", "1":
		if !info.Folder {
			depth = "0"
		}
		return depth, nil
	case "", "infinity":
		if !info.Folder {
			return "0", nil
		}
		return "", precondition(http.StatusForbidden, "<D:propfind-finite-depth/>", "ask with Depth: 0 or 1")
	}
	return "", status(http.StatusBadRequest, "Depth must be 0 or 1")
}

// proppatch changes properties.
func (f *face) proppatch(w http.ResponseWriter, r *http.Request, p string) error {
	body, err := readXML(r, xmlMax)
	if err != nil {
		return err
	}
	info, there, err := f.stat(r, p)
	if err != nil {
		return err
	}
	if !there {
		return fs.ErrNotExist
	}
	release, err := f.claim(r, p, claim{p, itself})
	if err != nil {
		return err
	}
	defer release()
	v := &view{face: f, ctx: r.Context(), infos: map[string]Info{p: info}, now: time.Now()}
	f.serveProps(w, r, p, v, body, "0")
	return nil
}

// serveProps lets x/net/webdav answer. Locks and conditions have been looked at, so it gets no If header, and locks that
// are always free.
func (f *face) serveProps(w http.ResponseWriter, r *http.Request, p string, v *view, body []byte, depth string) {
	var failed error
	h := webdav.Handler{
		FileSystem: v, LockSystem: freeLocks{}, Prefix: f.opt.Prefix,
		Logger: func(_ *http.Request, err error) { failed = err },
	}
	in := r.Clone(r.Context())
	in.Body = io.NopCloser(bytes.NewReader(body))
	in.Header.Del("If")
	in.Header.Set("Depth", depth)
	in.URL.Path, in.URL.RawPath = f.opt.Prefix+p, ""
	out := &onceWriter{ResponseWriter: w}
	h.ServeHTTP(out, in)
	if failed != nil && out.code == http.StatusMultiStatus {
		f.opt.Log.Debug("webdav: an answer was cut off", "err", failed)
		panic(http.ErrAbortHandler) // half a listing must not pass for a whole one
	}
}

// onceWriter passes the first status on. x/net/webdav sends a second one if it fails in the middle.
type onceWriter struct {
	http.ResponseWriter
	code int
}

func (w *onceWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
		w.ResponseWriter.WriteHeader(code)
	}
}

// view is what x/net/webdav sees of an FS for one request.
type view struct {
	face  *face
	ctx   context.Context
	infos map[string]Info // by path
	names []string        // what the folder holds, if it was listed
	asked asked
	space Space
	now   time.Time
}

func (v *view) list(folder string) error {
	infos, err := v.face.files.List(v.ctx, folder)
	if err != nil {
		return err
	}
	v.names = make([]string, len(infos))
	for i, info := range infos {
		v.names[i] = info.Name
		v.infos[path.Join(folder, info.Name)] = info
	}
	return nil
}

// Stat implements [webdav.FileSystem].
func (v *view) Stat(_ context.Context, name string) (os.FileInfo, error) {
	info, ok := v.infos[path.Clean("/"+name)]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return fileInfo{info, v.face.born}, nil
}

// OpenFile implements [webdav.FileSystem].
func (v *view) OpenFile(_ context.Context, name string, _ int, _ os.FileMode) (webdav.File, error) {
	name = path.Clean("/" + name)
	info, ok := v.infos[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return &propFile{view: v, path: name, info: info}, nil
}

func (v *view) Mkdir(context.Context, string, os.FileMode) error { return fs.ErrPermission }
func (v *view) RemoveAll(context.Context, string) error          { return fs.ErrPermission }
func (v *view) Rename(_ context.Context, _, _ string) error      { return fs.ErrPermission }

// fileInfo is an Info for x/net/webdav, which asks it for the type and the ETag as well.
type fileInfo struct {
	Info
	born time.Time
}

func (i fileInfo) Name() string { return i.Info.Name }
func (i fileInfo) Size() int64  { return i.Info.Size }
func (i fileInfo) IsDir() bool  { return i.Folder }
func (i fileInfo) Sys() any     { return nil }

func (i fileInfo) Mode() os.FileMode {
	if i.Folder {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

func (i fileInfo) ModTime() time.Time {
	if i.Info.ModTime.IsZero() {
		return i.born
	}
	return i.Info.ModTime
}

// ContentType implements [webdav.ContentTyper].
func (i fileInfo) ContentType(context.Context) (string, error) {
	return escapeText(typeOf(i.Info.Name)), nil
}

// ETag implements [webdav.ETager].
func (i fileInfo) ETag(context.Context) (string, error) {
	if tag := etagOf(i.Info); tag != "" {
		return tag, nil
	}
	return "", webdav.ErrNotImplemented
}

// propFile is a file or folder of a view. It has properties and no bytes.
type propFile struct {
	view *view
	path string
	info Info
}

func (p *propFile) Close() error                   { return nil }
func (p *propFile) Read([]byte) (int, error)       { return 0, fs.ErrPermission }
func (p *propFile) Write([]byte) (int, error)      { return 0, fs.ErrPermission }
func (p *propFile) Seek(int64, int) (int64, error) { return 0, fs.ErrPermission }
func (p *propFile) Stat() (os.FileInfo, error)     { return fileInfo{p.info, p.view.face.born}, nil }

// Readdir implements [http.File].
func (p *propFile) Readdir(int) ([]os.FileInfo, error) {
	out := make([]os.FileInfo, len(p.view.names))
	for i, name := range p.view.names {
		out[i] = fileInfo{p.view.infos[path.Join(p.path, name)], p.view.face.born}
	}
	return out, nil
}

// DeadProps implements [webdav.DeadPropsHolder]. What is returned here goes before the properties that x/net/webdav
// knows itself, so this is also where those come in that it lacks or has only half. Its answers bind the prefix D.
func (p *propFile) DeadProps() (map[xml.Name]webdav.Property, error) {
	v := p.view
	props := maps.Clone(v.face.props.get(p.path))
	if props == nil {
		props = make(propSet)
	}
	add := func(name xml.Name, always bool, value func() string) {
		if always && v.asked.all || v.asked.wants(name) {
			props[name] = webdav.Property{XMLName: name, InnerXML: []byte(value())}
		}
	}
	at := fileInfo{p.info, v.face.born}.ModTime().UTC()
	add(propCreated, true, func() string { return at.Format(time.RFC3339) })
	if !v.face.opt.ReadOnly {
		add(propSupported, false, func() string { return supportedLocks }) // for all it has its own half, and both would be sent
		add(propLocks, true, func() string { return v.face.activeLocks(v.now, v.face.locks.covering(v.now, p.path)) })
	}
	add(propFree, false, func() string { return strconv.FormatInt(v.space.Free, 10) })
	add(propUsed, false, func() string { return strconv.FormatInt(v.space.Used, 10) })
	add(propWinTime, false, func() string { return at.Format(http.TimeFormat) })
	return props, nil
}

// freeLocks is a LockSystem for a handler before which locks have been looked at.
type freeLocks struct{}

func (freeLocks) Confirm(time.Time, string, string, ...webdav.Condition) (func(), error) {
	return func() {}, nil
}
func (freeLocks) Create(time.Time, webdav.LockDetails) (string, error) { return "free", nil }
func (freeLocks) Unlock(time.Time, string) error                       { return nil }
func (freeLocks) Refresh(time.Time, string, time.Duration) (webdav.LockDetails, error) {
	return webdav.LockDetails{}, webdav.ErrNoSuchLock
}
