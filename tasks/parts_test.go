package tasks

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

// bare is as much of a Tasks as its parts need when they are tried alone: without a pool, a disk and a clock that anybody waits for.
func bare(t testing.TB) *Tasks {
	t.Helper()
	x := &Tasks{self: newIdentity(t, 1).ID, log: slog.New(slog.DiscardHandler), seats: map[job.ID]*seat{}}
	x.cfg = Config{
		Dir: t.TempDir(), Self: newIdentity(t, 1), Bytes: noPieces{}, Keeper: noRecord{}, Log: x.log,
		Boot: func() time.Duration { return time.Hour }, Now: time.Now,
	}
	x.ctx, x.cancel = context.WithCancel(t.Context())
	x.hand = newHand(x)
	return x
}

// noPieces holds none, but for those that it says it does.
type noPieces struct {
	Bytes
	here bool
}

func (b noPieces) Get(id chunk.CID) (piece.Piece, bool) { return piece.Piece{ID: id, Size: 1}, b.here }

// noRecord lists nothing.
type noRecord struct{}

func (noRecord) Lists(chunk.CID) bool                          { return false }
func (noRecord) Want(chunk.CID) tree.Want                      { return tree.Want{} }
func (noRecord) Hold(time.Duration, ...chunk.CID) (rel func()) { return func() {} }

// pagedSnapshot is one of a job with a page of results that was stored.
func pagedSnapshot(t testing.TB) (job.ID, []byte) {
	t.Helper()
	spec := count(2*market.PageTasks, "noop")
	spec.Pool, spec.Submitter, spec.Created = ident.PoolID{1}, newIdentity(t, 1).ID, time.Now()
	signed, err := job.Sign(newIdentity(t, 1).Key, spec)
	if err != nil {
		t.Fatal(err)
	}
	result, err := (&job.Result{}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	l := market.NewLedger(signed.ID, nil)
	commands := []market.Command{{Kind: market.Submit, By: spec.Submitter, Data: signed.Raw}}
	for i := range uint32(market.PageTasks) {
		commands = append(commands, market.Command{
			Kind: market.Finish, By: spec.Submitter, Data: result, Lease: market.Lease{Task: i, Token: job.Token{Term: 1, Seq: uint64(i) + 1}},
		})
	}
	data, err := market.EncodeBatch(time.Now(), commands)
	if err != nil {
		t.Fatal(err)
	}
	l.Apply(1, 1, data)
	for _, p := range l.Sealed() {
		l.Stored(p.CID)
	}
	snapshot, err := l.Snapshot()
	if err != nil || len(l.Pages()) != 1 {
		t.Fatalf("%d pages, %v", len(l.Pages()), err)
	}
	return signed.ID, snapshot
}

// TestAPageIsMissingAtTheStart: a steward is killed before it has fetched a page. When it starts again its machine is restored before
// there is a group, of which the others could be asked for the page.
func TestAPageIsMissingAtTheStart(t *testing.T) {
	t.Parallel()
	x := bare(t)
	id, snapshot := pagedSnapshot(t)
	s := x.newSeat(id)
	if err := (machine{s.ledger, s}).Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	x.wg.Wait()
	if n := len(s.ledger.Missing()); n != 1 {
		t.Fatalf("%d pages are missing", n)
	}
	x.cfg.Bytes = noPieces{here: true}
	s.clerk.begin()
	x.wg.Wait()
	if n := len(s.ledger.Missing()); n != 0 {
		t.Errorf("%d pages are missing when the seat works", n)
	}
}

// TestLogsEndWithTheirReader: when what one stream says cannot be passed on, nobody waits for what the other one may still say.
func TestLogsEndWithTheirReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := bare(t)
		a := newTry(x.hand, market.Start{Attempt: market.Attempt{Job: job.ID{1}, Lease: market.Lease{Task: 3, Token: job.Token{Term: 1, Seq: 1}}}})
		a.out.limit, a.err.limit = 1<<20, 1<<20
		x.hand.tries[a.Attempt] = a
		_, _ = a.out.Write([]byte("it goes on"))
		broken := errors.New("the reader has gone")
		ended := make(chan error, 1)
		go func() {
			ended <- x.tellLog(t.Context(), &pb.Listen{Job: a.Job[:], Task: a.Task, Term: 1, Seq: 1, Follow: true}, func(*pb.Piece) error { return broken })
		}()
		synctest.Wait()
		select {
		case err := <-ended:
			if !errors.Is(err, broken) {
				t.Errorf("%v", err)
			}
		default:
			t.Error("it waits for a guest that says nothing")
			a.out.end()
			a.err.end()
			<-ended
		}
	})
}

// TestAStewardShutsDown: that this peer goes away says nothing of its jobs. Who watches one goes on elsewhere, or waits for it.
func TestAStewardShutsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := bare(t)
		s := x.newSeat(job.ID{1})
		s.timer = time.NewTimer(time.Hour)
		ended := make(chan error, 2)
		go func() { ended <- s.watch(t.Context(), func(*talk.News, bool) error { return nil }) }()
		go func() { ended <- s.call(t.Context(), func() {}) }()
		synctest.Wait()
		x.cancel()
		s.end()
		for range 2 {
			err := <-ended
			k := x.seek(s.id)
			if final := k.note(refusalOf(err)); final || !errors.Is(k.err(), ErrUnreachable) {
				t.Errorf("%v, and so %v", err, k.err())
			}
		}
	})
}

// TestALookThatFindsNoTurn: the worker must hear of each look that it asked for, or it would wait for that for ever.
func TestALookThatFindsNoTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := bare(t)
		for range looksMax {
			x.hand.looks <- struct{}{} // programs that nobody gives
		}
		x.hand.look(market.Ad{Job: job.ID{1}})
		x.wg.Wait()
		said := x.hand.box.take()
		if len(said) != 1 || said[0].Kind != market.Looked || said[0].Job != (job.ID{1}) || said[0].Look.Refused == "" {
			t.Errorf("%+v", said)
		}
	})
}
