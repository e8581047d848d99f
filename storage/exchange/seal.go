package exchange

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// What travels on a lane is a sequence of records: four bytes of length (big-endian), and that many bytes of AES-256-GCM,
// the tag included, with the record's number as the nonce. The key is for one lane and one direction, so no nonce comes
// twice. An empty record is the end; an end without it is an error, or somebody on the way could cut a lane short.
const (
	recordMax  = 128 << 10 // plain bytes of one record: TLS takes 16 KiB, and a system call for each
	recordHead = 4
	sealTag    = 16
	sealedMax  = recordMax + sealTag
	sealBatch  = 2 * (recordHead + sealedMax) // bytes of one write
	laneBytes  = 1 << 40                      // what one key may seal, far below what AES-GCM allows
)

var (
	errLane     = errors.New("exchange: lane: a record is not what was sealed")
	errLaneLong = errors.New("exchange: lane: enough was sent with one key")
)

// sealBuffers hold sealed records on their way to a lane.
var sealBuffers = sync.Pool{New: func() any { b := make([]byte, 0, sealBatch); return &b }}

// sealing is one direction's state.
type sealing struct {
	aead  cipher.AEAD
	count uint64 // of records
	bytes int64
}

func newSealing(key []byte) (sealing, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealing{}, fmt.Errorf("exchange: lane: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	return sealing{aead: aead}, err
}

// nonce is the next record's, of n plain bytes.
func (s *sealing) nonce(n int) (nonce [12]byte, err error) {
	if s.bytes += int64(n); s.bytes > laneBytes {
		return nonce, errLaneLong
	}
	binary.BigEndian.PutUint64(nonce[4:], s.count)
	s.count++
	return nonce, nil
}

// laneWriter seals what is written to a connection, unless the lane is open. It is for one goroutine.
type laneWriter struct {
	conn net.Conn
	open *net.TCPConn // conn, if nothing is sealed
	sealing
}

// newLaneWriter begins a lane for whoever has said its id.
func newLaneWriter(conn *net.TCPConn, m *Lane) (w *laneWriter, err error) {
	w = &laneWriter{conn: conn}
	if !m.Open {
		w.sealing, err = newSealing(m.Key)
		return w, err
	}
	w.open = conn
	_ = conn.SetWriteDeadline(time.Now().Add(writeWait))
	_, err = conn.Write(m.Key)
	return w, err
}

// Write sends p whole: what does not fill a record comes first, so that a leaf, which follows its short header, is sealed
// in full records, which the other side opens to where they belong.
func (w *laneWriter) Write(p []byte) (n int, err error) {
	if w.open != nil {
		return w.conn.Write(p)
	}
	buf := sealBuffers.Get().(*[]byte)
	defer sealBuffers.Put(buf)
	out := (*buf)[:0]
	for n < len(p) {
		size := (len(p) - n) % recordMax
		if size == 0 {
			size = recordMax
		}
		if out, err = w.seal(out, p[n:n+size]); err != nil {
			return n, err
		}
		if n += size; n < len(p) && len(out)+recordHead+sealedMax <= sealBatch {
			continue
		}
		if _, err := w.conn.Write(out); err != nil {
			return n, err
		}
		out = out[:0]
	}
	return n, nil
}

// end sends the record that says that no more follow, and closes the connection.
func (w *laneWriter) end() error {
	if w.open != nil {
		return w.conn.Close()
	}
	_ = w.conn.SetWriteDeadline(time.Now().Add(writeWait))
	out, err := w.seal(nil, nil)
	if err == nil {
		_, err = w.conn.Write(out)
	}
	return errors.Join(err, w.conn.Close())
}

func (w *laneWriter) seal(out, plain []byte) ([]byte, error) {
	nonce, err := w.nonce(len(plain))
	if err != nil {
		return nil, err
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(plain)+sealTag))
	return w.aead.Seal(out, nonce[:], plain, nil), nil
}

// laneReader opens what comes on a connection. It is for one goroutine.
type laneReader struct {
	conn io.Reader
	sealing
	sealed []byte // of one record
	plain  []byte // opened, and not read yet
}

// newLaneReader reads what comes on a lane.
func newLaneReader(conn io.Reader, m *Lane) (io.Reader, error) {
	if m.Open {
		return &openReader{conn: conn, key: m.Key}, nil
	}
	s, err := newSealing(m.Key)
	return &laneReader{conn: conn, sealing: s}, err
}

// openReader reads an open lane. An end on it is always an error: it says no end, and a server that was killed says the same.
type openReader struct {
	conn io.Reader
	key  []byte // that the server has not shown yet
}

func (r *openReader) Read(p []byte) (int, error) {
	if r.key != nil {
		got := make([]byte, len(r.key))
		if _, err := io.ReadFull(r.conn, got); err != nil {
			return 0, cutShort(err)
		}
		if subtle.ConstantTimeCompare(got, r.key) == 0 {
			return 0, errLane
		}
		r.key = nil
	}
	n, err := r.conn.Read(p)
	return n, cutShort(err)
}

// Read opens the next record straight into p if that holds it.
func (r *laneReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.plain) > 0 {
		n := copy(p, r.plain)
		r.plain = r.plain[n:]
		return n, nil
	}
	size, err := r.next()
	if err != nil {
		return 0, err
	}
	to := p[:0:len(p)]
	if size > len(p) {
		to = make([]byte, 0, size)
	}
	nonce, err := r.nonce(size)
	if err != nil {
		return 0, err
	}
	plain, err := r.aead.Open(to, nonce[:], r.sealed, nil)
	if err != nil {
		return 0, errLane
	}
	if size > len(p) {
		n := copy(p, plain)
		r.plain = plain[n:]
		return n, nil
	}
	if size == 0 {
		return 0, io.EOF
	}
	return size, nil
}

// next reads a sealed record and returns the length of what is in it.
func (r *laneReader) next() (size int, err error) {
	var head [recordHead]byte
	if _, err := io.ReadFull(r.conn, head[:]); err != nil {
		return 0, cutShort(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < sealTag || n > sealedMax {
		return 0, errLane
	}
	if r.sealed == nil {
		r.sealed = make([]byte, sealedMax)
	}
	r.sealed = r.sealed[:n]
	if _, err := io.ReadFull(r.conn, r.sealed); err != nil {
		return 0, cutShort(err)
	}
	return int(n) - sealTag, nil
}

// cutShort makes an end where none was said an error.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
