package piece

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder"
)

// Add cuts what r gives into pieces, hashing on all cores, and writes those that are not here. Reading ends with
// io.EOF. Errors: r's, the file system's, ErrQuota, ctx's. After an error, pieces that were complete stay in the batch.
func (b *Batch) Add(ctx context.Context, r io.Reader) (File, error) {
	c := &cutter{b: b, ctx: ctx, r: r}
	f, err := c.file()
	c.drop()
	if err != nil {
		return File{}, fmt.Errorf("piece: add: %w", err)
	}
	return f, nil
}

// cutter reads one file. Leaves are hashed beside the reading and writing, a bounded number at a time.
type cutter struct {
	b   *Batch
	ctx context.Context
	r   io.Reader
	eof bool

	flight []*leaf // read, not settled, in order
	spare  []*leaf
	leaves []chunk.CID // of the file so far, settled

	// The large piece that is being written.
	temp     string
	file1    folder.File
	reserved int64
}

// leaf is one that is in memory.
type leaf struct {
	buf  []byte // all of it
	n    int    // bytes read
	id   chunk.CID
	done chan struct{} // closed once it is hashed
}

// flightMax is how many leaves one Add has in memory.
func flightMax() int { return runtime.GOMAXPROCS(0) + 2 }

var leafBuffers = sync.Pool{New: func() any { b := make([]byte, chunk.LeafSize); return &b }}

// zeroLeaf is the name of a whole leaf of zeros.
var zeroLeaf = sync.OnceValue(func() chunk.CID { return chunk.SumRaw(make([]byte, chunk.LeafSize)) })

// file cuts all of it.
func (c *cutter) file() (File, error) {
	var f File
	for {
		first, err := c.next()
		if err != nil {
			return File{}, err
		}
		if first == nil {
			break
		}
		p, err := c.piece(first)
		if err != nil {
			return File{}, err
		}
		f.Pieces = append(f.Pieces, p)
		if f.Size += p.Size; f.Size > FileMax {
			return File{}, fmt.Errorf("a file has more than %d bytes", int64(FileMax))
		}
	}
	if len(f.Pieces) == 1 {
		f.Root = f.Pieces[0].ID
		return f, nil
	}
	root, _ := chunk.FileDAG(c.leaves, f.Size)
	f.Root = root.CID
	return f, nil
}

// next reads one leaf and has it hashed; nil at the end.
func (c *cutter) next() (*leaf, error) {
	if c.eof {
		return nil, nil
	}
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	l := c.free()
	n, err := io.ReadFull(c.r, l.buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		c.eof, err = true, nil
	}
	if l.n = n; err != nil || n == 0 {
		c.spare = append(c.spare, l)
		return nil, err
	}
	l.done = make(chan struct{})
	c.flight = append(c.flight, l)
	go l.hash()
	return l, nil
}

func (l *leaf) hash() {
	if l.n == len(l.buf) && allZero(l.buf) {
		l.id = zeroLeaf()
	} else {
		l.id = chunk.SumRaw(l.buf[:l.n])
	}
	close(l.done)
}

// free gives a leaf to read into, waiting for the oldest to be hashed if there are enough.
func (c *cutter) free() *leaf {
	if n := len(c.spare); n > 0 {
		l := c.spare[n-1]
		c.spare = c.spare[:n-1]
		return l
	}
	if len(c.flight) >= flightMax() {
		return c.settle()
	}
	return &leaf{buf: *leafBuffers.Get().(*[]byte)}
}

// settle waits for the oldest leaf, and takes its name.
func (c *cutter) settle() *leaf {
	l := c.flight[0]
	c.flight = c.flight[1:]
	<-l.done
	c.leaves = append(c.leaves, l.id)
	return l
}

func (c *cutter) settleAll() {
	for len(c.flight) > 0 {
		c.spare = append(c.spare, c.settle())
	}
}

// piece cuts one piece, of which the first leaf is read.
func (c *cutter) piece(first *leaf) (Piece, error) {
	second, err := c.next()
	if err != nil {
		return Piece{}, err
	}
	if second == nil {
		<-first.done
		p := Piece{first.id, int64(first.n)}
		err := c.b.addSmall(p.ID, first.buf[:first.n])
		c.settleAll()
		return p, err
	}
	from, size := len(c.leaves)+len(c.flight)-2, int64(0)
	if err := c.begin(); err != nil {
		return Piece{}, err
	}
	for l, after, n := first, second, 1; l != nil; l, after, n = after, nil, n+1 {
		if err := c.write(l); err != nil {
			return Piece{}, err
		}
		if size += int64(l.n); after == nil && n < chunk.LinksMax {
			if after, err = c.next(); err != nil {
				return Piece{}, err
			}
		}
	}
	c.settleAll()
	return c.end(c.leaves[from:], size)
}

func (c *cutter) begin() (err error) {
	s := c.b.s
	s.mu.Lock()
	s.temps++
	c.temp = fmt.Sprintf("%s/%s%d", largeDir, tempPrefix, s.temps)
	s.mu.Unlock()
	c.file1, err = s.fs.Create(c.temp)
	return err
}

// write adds a leaf to the piece's file, while it is hashed.
func (c *cutter) write(l *leaf) error {
	n := roundUp(int64(l.n))
	if err := c.b.s.reserve(n); err != nil {
		return err
	}
	c.reserved += n
	if l.n == len(l.buf) && allZero(l.buf) {
		return c.file1.Skip(int64(l.n))
	}
	_, err := c.file1.Write(l.buf[:l.n])
	return err
}

// end names the piece and hands its file to the batch, unless it is here already.
func (c *cutter) end(leaves []chunk.CID, size int64) (Piece, error) {
	root, nodes := chunk.FileDAG(leaves, size)
	p := Piece{root.CID, size}
	here, err := c.b.lock(p.ID)
	if err != nil || here {
		return p, errors.Join(err, c.discard())
	}
	x := &cut{temp: c.temp, size: size, node: nodes[0].Data, synced: make(chan struct{})}
	if err := c.b.s.reserve(x.cost() - c.reserved); err != nil {
		return p, err
	}
	f := c.file1
	c.file1, c.reserved = nil, 0
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.b.closed || c.b.large[p.ID] != nil {
		err := f.Close()
		c.b.s.dropCut(p.ID, x)
		return p, err
	}
	c.b.large[p.ID] = x
	go func() {
		c.b.syncs <- struct{}{}
		x.err = errors.Join(f.Sync(), f.Close())
		<-c.b.syncs
		close(x.synced)
	}()
	return p, nil
}

// discard deletes the file of the piece that is being written.
func (c *cutter) discard() error {
	if c.file1 == nil {
		return nil
	}
	err := errors.Join(c.file1.Close(), c.b.s.fs.Remove(c.temp))
	c.b.s.unreserve(c.reserved)
	c.file1, c.reserved = nil, 0
	return err
}

// drop gives back what the cutter has.
func (c *cutter) drop() {
	if err := c.discard(); err != nil {
		c.b.s.log.Warn("pool files: a file could not be removed", "file", c.temp, "err", err)
	}
	c.settleAll()
	for _, l := range c.spare {
		leafBuffers.Put(&l.buf)
	}
}

// zeroPage is what allZero compares with.
var zeroPage [64 << 10]byte

func allZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroPage))
		if !bytes.Equal(b[:n], zeroPage[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
