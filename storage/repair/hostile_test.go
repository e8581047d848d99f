package repair

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	libp2p "github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/directory/disk"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

// say writes messages and bytes to a peer as another member, and returns why the stream ended: the kind of the refusal.
func say(t *testing.T, from, to *fakeNode, what ...any) wire.ErrKind {
	t.Helper()
	raw, err := from.NewStream(t.Context(), to.id.ID, Protocol)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Reset() }()
	for _, w := range what {
		switch w := w.(type) {
		case *pb.Ask:
			err = wire.WriteMsg(raw, w, 1<<24)
		case []byte:
			_, err = raw.Write(w)
		}
		if err != nil {
			break // it ended already
		}
	}
	for {
		var a pb.Answer
		if err := wire.ReadMsg(raw, &a, answerMax); err != nil {
			return 0
		}
		if a.GetRefusal() != nil {
			return wire.ErrKind(a.GetRefusal().GetKind())
		}
	}
}

func TestHostileQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := poolOf(t, 2, nil)
		a, b := nodes[0], nodes[1]
		good := []byte("good bytes")
		id := chunk.SumRaw(good)
		ids := func(n int) []byte { return bytes.Repeat(inventory.Append(nil, id), n) }
		nonce := make([]byte, nonceLen)
		for name, c := range map[string]struct {
			say  []any
			want wire.ErrKind
		}{
			"nothing":            {[]any{&pb.Ask{}}, wire.Malformed},
			"noise":              {[]any{[]byte{5, 1, 2, 3, 4, 5}}, wire.Malformed},
			"a huge message":     {[]any{binary.AppendUvarint(nil, 1<<30)}, wire.TooLarge},
			"an unknown kind":    {[]any{[]byte{2, 0xfa, 0x01, 0}}, wire.Malformed},
			"other bytes":        {[]any{&pb.Ask{Put: &pb.Run{Pieces: ids(1), Sizes: []uint32{10}}}, []byte("evil bytes")}, wire.Malformed},
			"no bytes":           {[]any{&pb.Ask{Put: &pb.Run{Pieces: ids(1), Sizes: []uint32{0}}}}, wire.Malformed},
			"an empty run":       {[]any{&pb.Ask{Put: &pb.Run{}}}, wire.Malformed},
			"a run of one size":  {[]any{&pb.Ask{Put: &pb.Run{Pieces: ids(2), Sizes: []uint32{10}}}}, wire.Malformed},
			"a large small one":  {[]any{&pb.Ask{Put: &pb.Run{Pieces: ids(1), Sizes: []uint32{piece.SmallMax + 1}}}}, wire.Malformed},
			"a run too large":    {[]any{&pb.Ask{Put: &pb.Run{Pieces: ids(5), Sizes: []uint32{1 << 20, 1 << 20, 1 << 20, 1 << 20, 1}}}}, wire.TooLarge},
			"a run too long":     {[]any{&pb.Ask{Put: &pb.Run{Pieces: ids(runMax + 1), Sizes: make([]uint32, runMax+1)}}}, wire.Malformed},
			"too many to read":   {[]any{&pb.Ask{Read: &pb.Read{Pieces: ids(readMax + 1)}}}, wire.Malformed},
			"a cut list":         {[]any{&pb.Ask{Read: &pb.Read{Pieces: ids(2)[:40]}}}, wire.Malformed},
			"too many to prove":  {[]any{&pb.Ask{Prove: &pb.Prove{Pieces: ids(proveMax + 1), Nonce: nonce}}}, wire.Malformed},
			"no nonce":           {[]any{&pb.Ask{Prove: &pb.Prove{Pieces: ids(1)}}}, wire.Malformed},
			"an audit too large": {[]any{&pb.Ask{Audit: &pb.Audit{Piece: ids(1), Nonce: nonce, Length: auditMax + 1}}}, wire.Malformed},
			"of what is not":     {[]any{&pb.Ask{Audit: &pb.Audit{Piece: ids(1), Nonce: nonce, Length: 1}}}, wire.NotFound},
			"a take of nothing":  {[]any{&pb.Ask{Take: &pb.Take{Piece: ids(1)}}}, wire.Malformed},
			"a take of too much": {[]any{&pb.Ask{Take: &pb.Take{Piece: ids(1), Size: piece.PieceMax + 1}}}, wire.Malformed},
			"a strange epoch":    {[]any{&pb.Ask{Follow: &pb.Follow{Epoch: []byte{1}}}}, wire.Malformed},
			"strange sums":       {[]any{&pb.Ask{Follow: &pb.Follow{Sums: []byte{1}}}}, wire.Malformed},
		} {
			if got := say(t, a, b, c.say...); got != c.want {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		if n := b.pieces.Usage().Pieces; n != 0 {
			t.Errorf("%d pieces got in", n)
		}
		pieces := a.put(1, 5, 100, 2, 2)
		if n := w.least(pieces); n != 2 {
			t.Errorf("afterwards: %d copies", n)
		}
	})
}

// TestTooManyStreams: one member cannot take all that there are.
func TestTooManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := poolOf(t, 3, nil)
		for range 2 * servedEach {
			if _, err := nodes[0].NewStream(t.Context(), nodes[1].id.ID, Protocol); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := say(t, nodes[0], nodes[1]); got != wire.Busy {
			t.Errorf("%v", got)
		}
		if _, err := nodes[2].askProof(t.Context(), nodes[1].id.ID, []chunk.CID{chunk.SumRaw([]byte("x"))}); err != nil {
			t.Errorf("another member: %v", err)
		}
		settle(2 * quietTime) // who asks nothing is sent away
		if got := say(t, nodes[0], nodes[1], &pb.Ask{}); got != wire.Malformed {
			t.Errorf("later: %v", got)
		}
	})
}

// TestEndlessInventory: a member that says new things for ever costs bounded memory and little time.
func TestEndlessInventory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.join(1)
		liar := w.join(2)
		liar.mu.Lock()
		liar.handler = func(s stream) {
			var ask pb.Ask
			if wire.ReadMsg(s, &ask, askMax) != nil || ask.GetFollow() == nil {
				return
			}
			sum, packed := [32]byte{}, make([]byte, 0, bucketPart*inventory.Packed)
			for n := uint64(0); ; packed = packed[:0] {
				for range bucketPart {
					n++
					binary.BigEndian.PutUint64(sum[:], n*0x9e3779b97f4a7c15)
					packed = inventory.Append(packed, chunk.CID{Codec: chunk.Raw, Sum: sum})
				}
				d := &pb.Delta{Added: packed, Takings: []*pb.Taking{{Piece: packed[:inventory.Packed], Seconds: 1 << 31}}}
				if wire.WriteMsg(s, &pb.Answer{Delta: d}, answerMax) != nil {
					return
				}
			}
		}
		liar.mu.Unlock()
		w.setUp(liar, false)
		w.setUp(liar, true)
		settle(10 * time.Second)
		a.mu2(func() {
			slot, _ := a.book.Slot(liar.id.ID)
			if n := a.book.Count(slot); n > newsBurst+20*newsRate {
				t.Errorf("%d pieces after ten seconds", n)
			}
		})
		b := w.join(3)
		settle(time.Second)
		pieces := a.put(1, 10, 100, 2, 2)
		if !b.pieces.Has(pieces[0].ID) {
			t.Error("the others suffer")
		}
	})
}

// mu2 runs f with the lock of a Repair held.
func (x *fakeNode) mu2(f func()) {
	x.Repair.mu.Lock()
	defer x.Repair.mu.Unlock()
	f()
}

// bytesStream is a stream on which one side says some bytes.
type bytesStream struct {
	libp2p.Stream
	in io.Reader
	n  int
}

func (s *bytesStream) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (s *bytesStream) Write(p []byte) (int, error) {
	if s.n += len(p); s.n > 1<<26 {
		return 0, os.ErrDeadlineExceeded
	}
	return len(p), nil
}

func (s *bytesStream) Close() error                                { return nil }
func (s *bytesStream) Reset() error                                { return nil }
func (s *bytesStream) ResetWithError(libp2p.StreamErrorCode) error { return nil }
func (s *bytesStream) SetDeadline(time.Time) error                 { return nil }
func (s *bytesStream) SetReadDeadline(time.Time) error             { return nil }
func (s *bytesStream) SetWriteDeadline(time.Time) error            { return nil }

func FuzzVisit(f *testing.F) {
	w := newWorld(f)
	a := w.joinWith(1, Offer{Space: 1 << 24}, nil)
	held := a.files(1, 3, 100)
	for _, ask := range []*pb.Ask{
		{Put: &pb.Run{Pieces: inventory.Append(nil, held[0].ID), Sizes: []uint32{100}}},
		{Read: &pb.Read{Pieces: inventory.Append(nil, held[0].ID, held[1].ID)}},
		{Audit: &pb.Audit{Piece: inventory.Append(nil, held[0].ID), Nonce: make([]byte, nonceLen), Length: 10}},
		{Prove: &pb.Prove{Pieces: inventory.Append(nil, held[2].ID), Nonce: make([]byte, nonceLen)}},
		{Take: &pb.Take{Piece: inventory.Append(nil, held[0].ID), Size: 100}},
		{Follow: &pb.Follow{Epoch: make([]byte, 16), After: 7}},
	} {
		var b buffer
		if err := wire.WriteMsg(&b, ask, askMax); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		raw := &bytesStream{in: bytes.NewReader(data)}
		v := &visit{r: a.Repair, raw: raw, in: newReader(raw), peer: newIdentity(t, 2).ID}
		_ = v.run()
		for _, p := range held {
			if !a.pieces.Has(p.ID) {
				t.Fatal("a piece is gone")
			}
		}
	})
}

func FuzzHear(f *testing.F) {
	w := newWorld(f)
	a := w.joinWith(1, Offer{Space: 1 << 24}, nil)
	id := inventory.Append(nil, chunk.SumRaw([]byte("x")))
	for _, d := range []*pb.Delta{
		{Added: id, Epoch: make([]byte, 16), Next: 3}, {Removed: id, Usage: &pb.Usage{Held: 1 << 63, Free: 1 << 63}},
		{Buckets: []*pb.Bucket{{First: 255, Pieces: id}}, Takings: []*pb.Taking{{Piece: id, Seconds: 1 << 31}}},
		{Seen: []*pb.Seen{{Peer: []byte(a.id.ID), Seconds: 1 << 63}}},
	} {
		raw, err := proto.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	from := newIdentity(f, 2).ID
	f.Fuzz(func(t *testing.T, data []byte) {
		var d pb.Delta
		if len(data) > answerMax || proto.Unmarshal(data, &d) != nil {
			return
		}
		_, _ = a.hear(from, &d)
	})
}

func FuzzLoad(f *testing.F) {
	w := newWorld(f)
	a := w.joinWith(1, Offer{}, nil)
	a.mu2(func() {
		for _, e := range a.snapshot() {
			f.Add(byte(e.Kind), e.Payload)
		}
	})
	f.Add(byte(entryRows), make([]byte, inventory.Packed+8))
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		r := newRepair(a.Repair.cfg)
		l := loading{r: r}
		if err := l.load(disk.Entry{Kind: disk.Kind(kind), Payload: payload}); err == nil && len(r.told) > inventory.MembersMax {
			t.Error("too many members")
		}
	})
}

// FuzzAnswers has another member answer what it likes.
func FuzzAnswers(f *testing.F) {
	w := newWorld(f)
	a := w.joinWith(1, Offer{Space: 1 << 24}, nil)
	held := a.files(1, 3, 100)
	ids := inventory.Append(nil, held[0].ID, held[1].ID, held[2].ID)
	for _, m := range []*pb.Answer{
		{Run: &pb.Run{Pieces: ids, Sizes: []uint32{0, 0, 0}}}, {Ack: &pb.Ack{Stored: []byte{7}}}, {Still: &pb.Still{Bytes: 1}},
		{Proof: &pb.Proof{Kept: []byte{7}, Sums: make([]byte, 96)}}, {Refusal: &pb.Refusal{Kind: 1 << 31, Text: "no"}},
	} {
		var b buffer
		if err := wire.WriteMsg(&b, m, answerMax); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		again := func() *talk {
			raw := &bytesStream{in: bytes.NewReader(data)}
			return &talk{raw: raw, in: newReader(raw)}
		}
		_ = a.readPart(again(), held, func(id chunk.CID, b []byte) error {
			if len(b) != 100 {
				t.Errorf("%d bytes", len(b))
			}
			return nil
		})
		if stored, err := again().receiveAck(3); err == nil && len(stored) != 3 {
			t.Errorf("%v", stored)
		}
		m, err := again().receive()
		if err != nil {
			return
		}
		var all []chunk.CID
		for _, p := range held {
			all = append(all, p.ID)
		}
		if kept, err := a.checkProof(a.id.ID, all, make([]byte, nonceLen), m.GetProof()); err == nil && len(kept) != 3 {
			t.Errorf("%v", kept)
		}
	})
}

func FuzzOffer(f *testing.F) {
	id := newIdentity(f, 1).ID
	f.Add([]byte{8, 1, 16, 200, 1, 26, 2, 0xff, 0x1b})
	f.Fuzz(func(t *testing.T, value []byte) {
		m, ok := readOffer(&directory.Record{Key: lendsPrefix + id.String(), Author: id, Value: value})
		if ok && (m.Uptime > 100 || len(m.Owner) > 2*offerText) {
			t.Errorf("%+v", m)
		}
	})
}
