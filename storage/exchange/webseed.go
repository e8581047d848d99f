package exchange

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

const (
	webSeedsMax  = 4       // of one download
	webBytes     = 8 << 20 // of one request, at most, unless one leaf is more
	webTries     = 4       // requests in a row that may fail before a seed is given up
	webRetryWait = time.Second
)

// WebSource is a web seed and what became of it.
type WebSource struct {
	URL   string
	Bytes int64  // of leaves that came from there
	Why   string // it was dropped; "" if it was not
}

// webSeed fetches leaves of a single file from an HTTP server that supports
// ranges, like a session does from a peer. The scheduler takes it for a peer that
// has everything; what it sends is verified like all else.
type webSeed struct {
	job    *job
	id     sched.Peer
	url    string
	client *http.Client
	stop   context.CancelFunc
	ctx    context.Context

	// Of the job's goroutine.
	bytes int64
	why   string

	mu    sync.Mutex
	queue []bitfield.Run
	wake  chan struct{} // holds a token when the queue is not empty
}

// enlistWeb makes the job's web seeds known to the scheduler, once the tree is here.
func (j *job) enlistWeb() {
	urls := j.spec.Web[:min(len(j.spec.Web), webSeedsMax)]
	if len(urls) == 0 || j.webs != nil || len(j.tree.Leaves) == 0 {
		return
	}
	j.webs = map[sched.Peer]*webSeed{}
	for _, url := range urls {
		if j.lastID == math.MaxUint16 {
			return
		}
		j.lastID++
		w := &webSeed{job: j, id: j.lastID, url: url, client: webClient(j.spec.WebPrivate), wake: make(chan struct{}, 1)}
		j.webs[w.id] = w
		if err := chunk.CheckWebSeed(url); err != nil {
			w.why = err.Error()
			continue
		}
		if j.tree.Entries[0].Kind != chunk.File {
			w.why = "only a single file can come from a web server"
			continue
		}
		w.ctx, w.stop = context.WithCancel(j.ctx)
		j.tasks.Go(w.run)
		h := fnv.New64a()
		_, _ = io.WriteString(h, url)
		j.step(sched.Event{Kind: sched.Joined, Peer: w.id, Name: h.Sum64()})
	}
}

// actWeb does what the scheduler said about web seeds.
func (j *job) actWeb(out *sched.Out) {
	if j.webs == nil {
		return
	}
	for _, d := range out.Drops {
		if w := j.webs[d.Peer]; w != nil {
			w.drop(d.Why)
		}
	}
	for _, c := range out.Cancels {
		if w := j.webs[c.Peer]; w != nil {
			w.cancel(c.Run)
		}
	}
	for _, a := range out.Asks {
		if w := j.webs[a.Peer]; w != nil {
			w.ask(a.Run)
			j.expect(a.Run)
		}
	}
}

// eventWeb is event for news of a web seed.
func (j *job) eventWeb(n note) {
	w := n.web
	if w.why != "" {
		return
	}
	if n.ev.Kind == sched.Left {
		w.drop(n.err.Error())
		j.swarm.log.Warn("web seed dropped for this download", "url", w.url, "why", w.why)
	} else {
		j.lastNews = time.Now()
		j.received += int64(n.ev.Bytes)
		w.bytes += int64(n.ev.Bytes)
	}
	j.step(n.ev)
}

func (j *job) webSources() (out []WebSource) {
	for id := sched.Peer(1); int(id) <= int(j.lastID) && len(out) < len(j.webs); id++ {
		if w := j.webs[id]; w != nil {
			out = append(out, WebSource{w.url, w.bytes, w.why})
		}
	}
	return out
}

func (w *webSeed) drop(why string) {
	if w.why == "" {
		w.why = why
		w.stop()
	}
}

func (w *webSeed) ask(r bitfield.Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, r)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *webSeed) cancel(r bitfield.Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = cancelRuns(w.queue, []bitfield.Run{r})
}

// next takes a run of leaves that one request can fetch off the queue.
func (w *webSeed) next() (r bitfield.Run, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	bytes := int64(0)
	for len(w.queue) > 0 {
		head := &w.queue[0]
		if r.Count > 0 && (r.First+r.Count != head.First || bytes >= webBytes) {
			break
		}
		if r.Count == 0 {
			r.First = head.First
		}
		r.Count++
		bytes += max(0, int64(w.job.tree.Leaves[head.First].Size))
		head.First++
		if head.Count--; head.Count == 0 {
			w.queue = w.queue[1:]
		}
	}
	return r, r.Count > 0
}

// run fetches what is asked for until the job ends or the server proves useless.
func (w *webSeed) run() {
	defer w.client.CloseIdleConnections()
	for failed := 0; ; {
		r, ok := w.next()
		if !ok {
			select {
			case <-w.wake:
			case <-w.ctx.Done():
				return
			}
			continue
		}
		done, err := w.fetch(r)
		if err == nil {
			failed = 0
			continue
		}
		if w.ctx.Err() != nil {
			return
		}
		if done > 0 {
			failed = 0
		}
		failed++
		if errors.As(err, new(webRefusal)) || errors.Is(err, errNotPublic) || failed == webTries {
			_ = w.say(sched.Event{Kind: sched.Left}, errors.New(plainWebError(err)))
			return
		}
		w.putBack(bitfield.Run{First: r.First + done, Count: r.Count - done})
		select {
		case <-time.After(webRetryWait << (failed - 1)):
		case <-w.ctx.Done():
			return
		}
	}
}

// putBack returns leaves to the head of the queue.
func (w *webSeed) putBack(r bitfield.Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Count > 0 {
		w.queue = append([]bitfield.Run{r}, w.queue...)
	}
}

// plainWebError takes the request's URL off an error: it is said beside it.
func plainWebError(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

func (w *webSeed) say(ev sched.Event, err error) error {
	ev.Peer = w.id
	return w.job.post(note{kind: noteSched, web: w, ev: ev, err: err})
}

// fetch gets one run of leaves with one request, and says how many came whole.
func (w *webSeed) fetch(r bitfield.Run) (done int, err error) {
	tree := w.job.tree
	offset, n, size := tree.Leaves[r.First].Offset, int64(0), tree.Size
	for i := r.First; i < r.First+r.Count; i++ {
		n += int64(tree.Leaves[i].Size)
	}
	if size < 0 { // a raw root: as much as one leaf can be
		n = leafMax
	}
	body, total, err := webRange(w.ctx, w.client, w.url, offset, n, size)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	if size < 0 && total > leafMax {
		return 0, webRefusal{fmt.Sprintf("it has %d bytes there, more than the root can have", total)}
	}
	for i := r.First; i < r.First+r.Count; i++ {
		want := int(tree.Leaves[i].Size)
		if want < 0 {
			want = int(total)
		}
		if err := w.leaf(body, i, want); err != nil {
			return done, err
		}
		done++
	}
	return done, nil
}

// leaf reads one leaf and hands it to the verifiers.
func (w *webSeed) leaf(body io.Reader, i, size int) error {
	j := w.job
	b := j.slabs.take()
	b.from = w.id
	b.peer = ""
	if cap(b.buf) < size {
		b.buf = make([]byte, 0, size)
	}
	b.buf = b.buf[:size]
	unsaid, err := w.read(body, b.buf)
	if err != nil {
		j.slabs.put(b)
		return err
	}
	b.items = append(b.items, item{leaf: i, end: size})
	if err := w.say(sched.Event{Kind: sched.Arrived, Run: bitfield.Run{First: i, Count: 1}, Bytes: unsaid}, nil); err != nil {
		j.slabs.put(b)
		return err
	}
	select { // not of w.ctx: what has arrived is asked of nobody until it was looked at
	case j.work <- b:
	case <-j.ctx.Done():
		j.slabs.put(b)
		return j.ctx.Err()
	}
	return j.swarm.down.wait(w.ctx, size, false)
}

// read fills buf, showing on the way that bytes move; unsaid is how many of them
// it did not show.
func (w *webSeed) read(body io.Reader, buf []byte) (unsaid int, err error) {
	said := time.Now()
	for at := 0; at < len(buf); {
		n, err := body.Read(buf[at:])
		at += n
		unsaid += n
		if err != nil && at < len(buf) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return unsaid, err
		}
		if at < len(buf) && time.Since(said) > movingEvery {
			if err := w.say(sched.Event{Kind: sched.Moving, Bytes: unsaid}, nil); err != nil {
				return 0, err
			}
			unsaid, said = 0, time.Now()
		}
	}
	return unsaid, nil
}
