package repair

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/block/piece"
)

// Swarm has a Storage move large pieces.
func Swarm(s *storage.Storage) Fetch { return swarm{s} }

type swarm struct{ *storage.Storage }

// OpenPiece gives the reader as an interface.
func (s swarm) OpenPiece(ctx context.Context, p piece.Piece, from []peer.ID) (PieceReader, error) {
	r, err := s.Storage.OpenPiece(ctx, p, from)
	if err != nil {
		return nil, err // not a nil *PieceReader, which is no nil PieceReader
	}
	return r, nil
}
