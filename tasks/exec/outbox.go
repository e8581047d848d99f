package exec

import (
	"bytes"
	"io"
	"os"
	"sync"
	"time"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/exec/pb"
)

// lingerMax is how long output waits for more before it is passed on.
const lingerMax = 10 * time.Millisecond

// outbox is the child's way to its peer. Small writes are gathered, so that a guest that writes byte by byte does not cost a
// system call each, and a task's last words travel with its exit.
type outbox struct {
	mu     sync.Mutex
	w      io.Writer
	buf    bytes.Buffer // encoded reports
	out    []byte       // output not yet encoded
	stderr bool         // which stream out is of
	timer  *time.Timer  // flushes
	timed  bool         // the timer runs
}

func newOutbox(w io.Writer) *outbox {
	return &outbox{w: w, out: make([]byte, 0, outMax)}
}

// output takes what the guest wrote. It does not keep p.
func (o *outbox) output(stderr bool, p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if stderr != o.stderr {
		o.cut()
		o.stderr = stderr
	}
	for len(p) > 0 {
		n := copy(o.out[len(o.out):cap(o.out)], p)
		o.out = o.out[:len(o.out)+n]
		if p = p[n:]; len(o.out) == cap(o.out) {
			o.flush()
		}
	}
	if o.timed || len(o.out) == 0 && o.buf.Len() == 0 {
		return
	}
	o.timed = true
	if o.timer == nil {
		o.timer = time.AfterFunc(lingerMax, o.lingered)
	} else {
		o.timer.Reset(lingerMax)
	}
}

func (o *outbox) lingered() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timed = false
	o.flush()
}

// report sends all output so far and then m.
func (o *outbox) report(m *pb.Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cut()
	o.encode(m)
	o.flush()
}

// cut makes a report of the gathered output.
func (o *outbox) cut() {
	if len(o.out) == 0 {
		return
	}
	o.encode(&pb.Report{Report: &pb.Report_Out{Out: &pb.Out{Stderr: o.stderr, Data: o.out}}})
	o.out = o.out[:0]
}

func (o *outbox) encode(m *pb.Report) {
	if err := wire.WriteMsg(&o.buf, m, reportMax); err != nil {
		panic(err) // all that is sent is bounded above
	}
}

// flush writes all that is there. A peer that does not read is gone, and so is the child then.
func (o *outbox) flush() {
	o.cut()
	if o.buf.Len() == 0 {
		return
	}
	if _, err := o.w.Write(o.buf.Bytes()); err != nil {
		os.Exit(exitOrphan)
	}
	o.buf.Reset()
}
