package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

// readPage reads a page of results from here or, if a record lists it, from anywhere.
func (t *Tasks) readPage(ctx context.Context, id chunk.CID) ([]byte, error) {
	p, here := t.cfg.Bytes.Get(id)
	if !here {
		p = t.cfg.Keeper.Want(id).Piece
	}
	if p.Size <= 0 || p.Size > market.PageMax {
		return nil, fmt.Errorf("tasks: page %s: %w", id, piece.ErrNotFound)
	}
	r, err := t.cfg.Bytes.Open(ctx, piece.File{Root: id, Size: p.Size, Pieces: []piece.Piece{p}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	data := make([]byte, p.Size)
	if n, err := r.ReadAt(data, 0); n < len(data) && err != nil {
		return nil, err
	}
	return data, nil
}

// errListed says that a task's page is listed already.
var errListed = errors.New("its page is listed")

// pageReader reads records of tasks one after the other, keeping the last page.
type pageReader struct {
	t    *Tasks
	id   chunk.CID
	data []byte
}

// record finds what a ledger keeps of a task. With skip, one whose pages are all listed is errListed.
func (r *pageReader) record(ctx context.Context, l *market.Ledger, task int, skip bool) (market.Record, error) {
	rec, pages, err := l.ResultAt(task)
	if !errors.Is(err, market.ErrInPage) {
		return rec, err
	}
	if skip && !slices.ContainsFunc(pages, func(id chunk.CID) bool { return !r.t.cfg.Keeper.Lists(id) }) {
		return rec, errListed
	}
	for _, id := range pages {
		if r.id != id {
			data, err := r.t.readPage(ctx, id)
			if err != nil {
				return rec, err
			}
			r.id, r.data = id, data
		}
		rec, err = market.RecordIn(r.data, task)
		if !errors.Is(err, market.ErrOpen) {
			return rec, err
		}
	}
	return rec, market.ErrOpen
}

// eachPiece calls f for each piece that a record's results name.
func (t *Tasks) eachPiece(ctx context.Context, rec *market.Record, f func(piece.Piece)) error {
	for _, raw := range rec.Results {
		r, err := job.DecodeResult(raw)
		if err != nil {
			continue // the steward that took it in would not have
		}
		files := []job.File{r.Stdout.File, r.Stderr.File}
		for _, o := range r.Outputs {
			files = append(files, o.File)
		}
		outputs, err := t.Outputs(ctx, r)
		if err != nil {
			return err
		}
		for _, o := range outputs {
			files = append(files, o.File)
		}
		for _, file := range files {
			for _, p := range file.All() {
				f(piece.Piece{ID: p.ID, Size: p.Size})
			}
		}
	}
	return nil
}

// readAll reads a file of at most limit bytes.
func (t *Tasks) readAll(ctx context.Context, f job.File, limit int64) ([]byte, error) {
	if f.Size > limit {
		return nil, fmt.Errorf("tasks: a file of %d bytes, the limit is %d", f.Size, limit)
	}
	r, err := t.OpenFile(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(io.NewSectionReader(r, 0, f.Size))
}
