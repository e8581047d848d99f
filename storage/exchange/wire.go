package exchange

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// A stream of /shoal/chunk/1 begins with a Hello and a Welcome (package wire's
// messages). Then both sides send frames: one byte of type, four bytes of
// length (big-endian), that many bytes of payload.
const (
	frameHeader = 5
	leafHeader  = frameHeader + 4 // a leaf's payload begins with its index

	controlMax = 64 << 10 // payload of any frame but nodes and leaves
	helloMax   = 1 << 10
	welcomeMax = 1 << 20 // holds a bitfield
	runsMax    = 4096    // runs in one frame
	leafMax    = 2 << 20 // bytes of the largest leaf; ours are 1 MiB
	peersMax   = 50      // peers in one frame
	addrsMax   = 8       // addresses of one such peer
)

// frameType says what a frame is.
type frameType uint8

const (
	// To the server.
	frameTree    frameType = 1 // send the tree
	frameAsk     frameType = 2 // Runs: send these leaves
	frameCancel  frameType = 3 // Runs: do not send these after all
	frameLaneAsk frameType = 4 // open a lane

	// To the asker.
	frameNode    frameType = 16 // a non-leaf block; they come in walk order
	frameTreeEnd frameType = 17
	frameHave    frameType = 18 // Runs: has these leaves now too
	frameLeaf    frameType = 19 // index, then the leaf's bytes
	frameGone    frameType = 20 // Gone
	frameChoke   frameType = 21 // what was asked is put aside; ask again after frameUnchoke
	frameUnchoke frameType = 22
	framePeers   frameType = 23 // Peers
	frameSoon    frameType = 24 // Runs: has asked a seed for these leaves, and will pass them on
	frameLane    frameType = 25 // Lane: it can be taken up
	frameSwitch  frameType = 26 // the last on the stream: what follows comes on the lane
)

// payloadMax is the most a frame of this type may carry.
func (t frameType) payloadMax() int {
	switch t {
	case frameNode:
		return chunk.NodeMax
	case frameLeaf:
		return 4 + leafMax
	case frameTree, frameTreeEnd, frameChoke, frameUnchoke, frameLaneAsk, frameSwitch:
		return 0
	case frameAsk, frameCancel, frameHave, frameGone, framePeers, frameSoon, frameLane:
		return controlMax
	}
	return -1
}

// appendHeader appends a frame's first bytes to b.
func appendHeader(b []byte, t frameType, payload int) []byte {
	b = append(b, byte(t))
	return binary.BigEndian.AppendUint32(b, uint32(payload))
}

// appendFrame appends a whole frame to b.
func appendFrame(b []byte, t frameType, payload []byte) []byte {
	return append(appendHeader(b, t, len(payload)), payload...)
}

// appendMessage appends a frame that carries m. m is ours and small: it always encodes.
func appendMessage(b []byte, t frameType, m proto.Message) []byte {
	start := len(b)
	b = appendHeader(b, t, 0)
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, m)
	if err != nil {
		panic(fmt.Sprintf("exchange: encode: %v", err))
	}
	binary.BigEndian.PutUint32(b[start+1:], uint32(len(b)-start-frameHeader))
	return b
}

// appendRuns appends frames of type t that list runs.
func appendRuns(b []byte, t frameType, runs []bitfield.Run) []byte {
	for len(runs) > 0 {
		n := min(len(runs), runsMax)
		m := &Runs{Runs: make([]uint32, 0, 2*n)}
		for _, r := range runs[:n] {
			m.Runs = append(m.Runs, uint32(r.First), uint32(r.Count))
		}
		b, runs = appendMessage(b, t, m), runs[n:]
	}
	return b
}

// readHeader reads a frame's type and payload length, refusing types that
// allowed does not know and lengths over the type's limit.
func readHeader(r *bufio.Reader, allowed func(frameType) bool) (frameType, int, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:1]); err != nil {
		return 0, 0, err // io.EOF: the clean end of a stream
	}
	if _, err := io.ReadFull(r, h[1:]); err != nil {
		return 0, 0, io.ErrUnexpectedEOF
	}
	t, n := frameType(h[0]), binary.BigEndian.Uint32(h[1:])
	if !allowed(t) {
		return 0, 0, wire.Errorf(wire.Malformed, "unexpected frame type %d", t)
	}
	if int64(n) > int64(t.payloadMax()) {
		return 0, 0, wire.Errorf(wire.TooLarge, "frame type %d of %d bytes", t, n)
	}
	return t, int(n), nil
}

// readMessage reads a control frame's payload into m.
func readMessage(r *bufio.Reader, n int, m proto.Message) error {
	buf := make([]byte, n)
	if _, err := io.ReadFull(r, buf); err != nil {
		return fmt.Errorf("exchange: read frame: %w", io.ErrUnexpectedEOF)
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(buf, m); err != nil {
		return wire.Errorf(wire.Malformed, "frame is not what was expected: %v", err)
	}
	return nil
}

// readRuns reads a Runs payload, each inside [0, leaves).
func readRuns(r *bufio.Reader, n, leaves int) ([]bitfield.Run, error) {
	var m Runs
	if err := readMessage(r, n, &m); err != nil {
		return nil, err
	}
	if len(m.Runs)%2 != 0 || len(m.Runs) > 2*runsMax {
		return nil, wire.Errorf(wire.Malformed, "list of runs has %d numbers", len(m.Runs))
	}
	runs := make([]bitfield.Run, 0, len(m.Runs)/2)
	for i := 0; i < len(m.Runs); i += 2 {
		run, err := checkRun(m.Runs[i], m.Runs[i+1], leaves)
		if err != nil {
			return nil, err
		}
		runs = append(runs, run)
	}
	return runs, nil
}

func checkRun(first, count uint32, leaves int) (bitfield.Run, error) {
	if count == 0 || int64(first)+int64(count) > int64(leaves) {
		return bitfield.Run{}, wire.Errorf(wire.Malformed, "run [%d, +%d) of %d leaves", first, count, leaves)
	}
	return bitfield.Run{First: int(first), Count: int(count)}, nil
}

func toServer(t frameType) bool { return t >= frameTree && t <= frameLaneAsk }

func toAsker(t frameType) bool { return t >= frameNode && t <= frameSwitch }
