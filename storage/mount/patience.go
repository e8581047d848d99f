package mount

import (
	"io"
	"net/http"
	"time"
)

const (
	receiveIdle = 2 * time.Minute  // how long a client may send nothing of what it has begun to send
	sendIdle    = 10 * time.Minute // and may take nothing: a film that is paused
)

// patience gives a client time for each piece of what it sends and takes, however long the whole takes. Who is behind
// for longer is given up, since it holds one of the slots. Only real connections have deadlines; errors of setting one
// say that there is none.
type patience struct {
	http.ResponseWriter
	control *http.ResponseController
	body    io.ReadCloser
	over    bool // the body has ended, or failed
}

// newPatience puts itself between a request, whose body it replaces, and its connection, until end.
func newPatience(w http.ResponseWriter, r *http.Request) *patience {
	p := &patience{ResponseWriter: w, control: http.NewResponseController(w), body: r.Body}
	r.Body = patientBody{p}
	return p
}

// Write implements [io.Writer].
func (p *patience) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(sendIdle))
	return p.ResponseWriter.Write(b)
}

// end takes the deadline of writing back: the connection may be used again much later. What is left of a body net/http
// reads on its own before it sends an answer; for that there must be one, which it takes back itself.
func (p *patience) end() {
	_ = p.control.SetWriteDeadline(time.Time{})
	if !p.over {
		_ = p.control.SetReadDeadline(time.Now().Add(receiveIdle))
	}
}

type patientBody struct{ *patience }

// Read implements [io.Reader]. Once the body has ended there must be no deadline: net/http goes on to read, to notice
// when the client leaves, and would take it for that.
func (b patientBody) Read(p []byte) (int, error) {
	if !b.over {
		_ = b.control.SetReadDeadline(time.Now().Add(receiveIdle))
	}
	n, err := b.body.Read(p)
	if err == io.EOF {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	b.over = b.over || err != nil
	return n, err
}

// Close implements [io.Closer].
func (b patientBody) Close() error { return b.body.Close() }
