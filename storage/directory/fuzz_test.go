package directory

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
)

// tape is a stream whose other side said something once and listens to nothing.
type tape struct {
	fakeStream
	in   *bytes.Reader
	said bytes.Buffer
}

func (s *tape) Read(p []byte) (int, error)                   { return s.in.Read(p) }
func (s *tape) Write(p []byte) (int, error)                  { return s.said.Write(p) }
func (s *tape) Close() error                                 { return nil }
func (s *tape) Reset() error                                 { return nil }
func (s *tape) ResetWithError(network.StreamErrorCode) error { return nil }
func (s *tape) SetDeadline(time.Time) error                  { return nil }

// FuzzServe lets another member say anything on a stream.
func FuzzServe(f *testing.F) {
	p := newFakePool(f)
	x := p.join(1)
	p.members[newIdentity(f, 2).ID] = time.Time{}
	for i := range 40 {
		x.put(string(rune('a'+i)), "value")
	}
	say := func(packets ...*Packet) []byte {
		var buf bytes.Buffer
		for _, m := range packets {
			if err := wire.WriteMsg(&buf, m, packetMax); err != nil {
				f.Fatal(err)
			}
		}
		return buf.Bytes()
	}
	hello := &Packet{Hello: &Hello{Digest: make([]byte, 32), ClockMs: 1, PoolMs: 1, Voices: 3}}
	raw := record(f, testPool, 2, Record{Key: "k", Value: []byte("v")}).Append(nil)
	f.Add(say(hello))
	f.Add(say(hello, &Packet{Turn: &Turn{Ranges: []byte{0, 2, 0}}}, &Packet{Turn: &Turn{}}))
	f.Add(say(hello, &Packet{Turn: &Turn{Records: [][]byte{raw, raw[:9]}, Want: make([]byte, 24)}}))
	f.Add(say(&Packet{Refusal: &Refusal{Kind: 4, Text: "\x1b[2J"}}))
	f.Add([]byte{0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &tape{in: bytes.NewReader(data)}
		s.self, s.remote = x, newIdentity(t, 2).ID
		x.serve(s)
		if n := s.said.Len(); n > 50*len(data)+100_000 {
			t.Errorf("%d bytes were answered to %d", n, len(data))
		}
		for r := bytes.NewReader(s.said.Bytes()); ; {
			if err := wire.ReadMsg(r, &Packet{}, packetMax); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzNews lets another member publish anything.
func FuzzNews(f *testing.F) {
	p := newFakePool(f)
	x := p.join(1)
	p.members[newIdentity(f, 2).ID] = time.Time{}
	raw := record(f, testPool, 2, Record{Key: "k", Value: []byte("v")}).Append(nil)
	for _, m := range []*Announcement{{Records: [][]byte{raw}, Digest: make([]byte, 32)}, {Records: [][]byte{raw[:70]}}, {}} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ok := CheckNews(data) == nil
		before := x.Digest()
		x.hearNews(newIdentity(t, 2).ID, data)
		if !ok && x.Digest() != before {
			t.Error("news that the topic refuses came in")
		}
	})
}
