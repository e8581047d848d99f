package directory

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/storage/directory/names"
)

const (
	// newsMax is the largest news message, in bytes: what the topic allows, less what signing it adds.
	newsMax = 60 << 10

	// outboxMax is how many records may wait to be told. Members get what does not fit when they catch up, which is
	// cheaper for so much.
	outboxMax = 8192

	// newsDelay is how long a record may wait for others to share its message.
	newsDelay = 10 * time.Millisecond
	// newsPause is the time between two messages: 30 a second at most, for the topic takes 50.
	newsPause = 33 * time.Millisecond
	// newsLast is how many messages are sent at closing without a pause.
	newsLast = 8
)

// outbox holds the records that the pool is to be told of.
type outbox struct {
	mu      sync.Mutex
	records []*Record
	wake    chan struct{}
}

// add returns false if not all of them found room.
func (o *outbox) add(records []*Record) bool {
	if len(records) == 0 {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(len(records), outboxMax-len(o.records))
	o.records = append(o.records, records[:n]...)
	signal(o.wake)
	return n == len(records)
}

// take removes as many records as one message holds, and encodes them.
func (o *outbox) take() (m *Announcement, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m = &Announcement{}
	size := protowire.SizeTag(2) + protowire.SizeBytes(len(names.Digest{}))
	for len(o.records) > 0 {
		r := o.records[0]
		size += protowire.SizeTag(1) + protowire.SizeBytes(r.Size())
		if size > newsMax {
			break
		}
		m.Records = append(m.Records, r.Append(nil))
		o.records[0] = nil
		o.records = o.records[1:]
	}
	return m, len(o.records) > 0
}

// publish tells the pool what was written here.
func (d *Directory) publish() {
	for {
		select {
		case <-d.outbox.wake:
		case <-d.ctx.Done():
			return
		}
		pause := newsDelay
		for more := true; more; pause = newsPause {
			if !d.pause(pause) {
				return
			}
			more = d.publishOne()
		}
		if !d.pause(newsPause - newsDelay) {
			return
		}
	}
}

func (d *Directory) publishOne() (more bool) {
	m, more := d.outbox.take()
	if len(m.Records) == 0 {
		return more
	}
	digest := d.Digest()
	m.Digest = digest[:]
	data, err := proto.Marshal(m)
	if err == nil {
		err = d.cfg.News.Publish(d.ctx, data)
	}
	if err != nil {
		d.contacts.hurry() // they have to fetch it instead
	}
	return more
}

// pause waits; false means that the directory was closed meanwhile.
func (d *Directory) pause(t time.Duration) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-d.ctx.Done():
		return false
	}
}

// listen takes in what others tell.
func (d *Directory) listen() {
	for {
		from, data, err := d.cfg.News.Next(d.ctx)
		if d.ctx.Err() != nil {
			return
		}
		if err != nil {
			if !d.pause(time.Second) { // the topic may be gone, while streams work still
				return
			}
			continue
		}
		d.hearNews(from, data)
	}
}

func (d *Directory) hearNews(from peer.ID, data []byte) {
	var m Announcement
	if len(data) > newsMax || proto.Unmarshal(data, &m) != nil {
		return
	}
	records, err := d.decode(m.Records)
	if err != nil {
		return
	}
	if _, err := d.receive(records); err != nil {
		return
	}
	if digest, ok := digestFrom(m.Digest); ok {
		d.Heard(from, digest)
	}
}

// CheckNews says whether a news message is one that honest members send: for the topic's validator, so that others
// are not passed on. It looks at form and size; signatures are checked where records are taken in.
func CheckNews(data []byte) error {
	if len(data) > newsMax {
		return errNewsSize
	}
	var m Announcement
	if err := proto.Unmarshal(data, &m); err != nil {
		return err
	}
	for _, raw := range m.Records {
		if _, err := names.Decode(names.Pool{}, raw); err != nil {
			return err
		}
	}
	return nil
}
