package evil

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/gossip"
	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/exchange"
	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/storage/repair"
)

// floodable are the protocols that a flooder abuses.
var floodable = []protocol.ID{
	pool.LinkProtocol, pool.JoinProtocol, pool.RenewProtocol, directory.Protocol, exchange.Protocol, repair.Protocol,
	gossip.Protocol, quorum.Protocol, "/shoal/kad/1.0.0", "/shoal/market/1", "/shoal/log/1", "/shoal/api/1",
}

// rubbishMax is the most that one attack sends.
const rubbishMax = 64 << 10

// flood opens a stream and abuses it in one of four ways, which take turns.
func (e *enemy) flood(ctx context.Context, victim peer.ID, n int) error {
	s, err := e.open(ctx, victim, floodable[rand.IntN(len(floodable))])
	if err != nil {
		return err
	}
	defer s.Reset()
	rubbish := make([]byte, rand.IntN(rubbishMax))
	for i := range rubbish {
		rubbish[i] = byte(rand.Uint32())
	}
	switch n % 4 {
	case 0: // nothing but rubbish
		_, err = s.Write(rubbish)
	case 1: // a message of four gigabytes begins
		_, err = s.Write(append(binary.AppendUvarint(nil, 1<<32), rubbish...))
	case 2: // a message that could be one, with rubbish in it
		_, err = s.Write(append(binary.AppendUvarint(nil, uint64(len(rubbish))), rubbish...))
	case 3: // the beginning of a message, and then silence
		_, err = s.Write(binary.AppendUvarint(nil, 100))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	e.did.sent.Add(1)
	// What comes back is read to its end, as far as the deadline: an orderly end is as good a refusal as a reset.
	if _, err := io.Copy(io.Discard, io.LimitReader(s, rubbishMax)); err != nil {
		return err
	}
	return errRefused
}
