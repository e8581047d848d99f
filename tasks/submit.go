package tasks

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/tasks/card"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/keep"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

const (
	// submitWait bounds a submission. It is well below orphanWait, after which a group without a submission is ended.
	submitWait = time.Minute
	// cachedWait bounds the question whether the results of an earlier job can be had.
	cachedWait = 2 * time.Second
	// cachedMargin is how long results must still be kept to be an answer.
	cachedMargin = time.Hour
	// spareWait is how long a submission waits for the stewards beyond a majority to have it too.
	spareWait = 100 * time.Millisecond
	// spareLook is how soon that is looked at first; then it takes twice as long each time.
	spareLook = 50 * time.Microsecond
)

// Submit signs a job and hands it to its stewards; when it returns without error the job is in their log, and goes on without this
// peer if Spare says so. Pool, Submitter, Created and Nonce of the spec are filled in. A job of the same Key whose results are all
// stored is returned instead, unless opt.Fresh. Errors: ErrSpec, ErrRole, ErrUnreachable.
func (t *Tasks) Submit(ctx context.Context, spec job.Spec, opt SubmitOptions) (Submitted, error) {
	ctx, cancel := context.WithTimeout(ctx, submitWait)
	defer cancel()
	spec.Pool, spec.Submitter, spec.Created = t.cfg.Pool, t.self, t.cfg.Now()
	if err := spec.Validate(); err != nil {
		return Submitted{}, fmt.Errorf("tasks: submit: %w: %w", ErrSpec, err)
	}
	if !opt.Fresh {
		if out, ok := t.cached(ctx, spec.Key()); ok {
			return out, nil
		}
	}
	role := t.role(t.self)
	if role == ident.RoleNone {
		return Submitted{}, fmt.Errorf("tasks: submit: %w", ErrRole)
	}
	var last error
	for try := range submitTries {
		spec.Nonce = nonce()
		signed, err := job.Sign(t.cfg.Self.Key, spec)
		if err != nil {
			return Submitted{}, fmt.Errorf("tasks: submit: %w: %w", ErrSpec, err)
		}
		var out Submitted
		if role < ident.RoleMember {
			out, err = t.handOver(ctx, signed)
		} else {
			out, err = t.launch(ctx, signed, try == submitTries-1)
		}
		if err == nil {
			return out, nil
		}
		last = err
		if !errors.Is(err, quorum.ErrNoQuorum) || ctx.Err() != nil {
			break
		}
	}
	if errors.Is(last, quorum.ErrNoQuorum) {
		last = errors.Join(ErrUnreachable, last)
	}
	return Submitted{}, fmt.Errorf("tasks: submit: %w", last)
}

// submitTries is how often other stewards are tried when those chosen could not be reached after all. Each try is a job of its own,
// since a group's id is used once; the last is with this peer alone.
const submitTries = 2

func nonce() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return binary.BigEndian.Uint64(b[:])
}

// cached finds a job that did the same work and whose results are all there.
func (t *Tasks) cached(ctx context.Context, key job.Key) (Submitted, bool) {
	var found []*card.Card
	for _, c := range t.known() {
		// One that is not said to have ended may have: its card follows a moment later.
		if c.Key == key && (c.End == card.NotYet || c.End == card.Done && c.Expires.After(t.cfg.Now().Add(cachedMargin))) {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b *card.Card) int { return b.Created.Compare(a.Created) })
	ctx, cancel := context.WithTimeout(ctx, cachedWait)
	defer cancel()
	for _, c := range found {
		a, err := t.askOne(ctx, &pb.Ask{Kind: talk.AskView, Job: c.ID[:]})
		if err != nil {
			continue
		}
		// A card is a member's word; that the results are of this very work is the spec's.
		v, err := talk.ViewFrom(a.GetView())
		if err != nil || !v.Progress.Over || v.Progress.Done != v.Progress.Tasks {
			continue
		}
		signed, err := t.fetchSpec(ctx, c.ID, t.stewards(c.ID))
		if err == nil && signed.Spec.Key() == key {
			return Submitted{ID: c.ID, Cached: true, Stewards: v.Stewards, Spare: v.Spare}, true
		}
	}
	return Submitted{}, false
}

// launch makes a job's group with the job in its log, and meanwhile the records that keep what the spec names. A crash in between leaves
// a record without a job, which its writer deletes, or a job without the record, of which nobody was told that it was taken.
func (t *Tasks) launch(ctx context.Context, signed *job.Signed, alone bool) (Submitted, error) {
	id := signed.ID
	voters := t.chooseStewards(id)
	if alone || len(voters) == 0 {
		voters = []peer.ID{t.self}
	}
	changes, err := t.namedIn(ctx, signed)
	if err != nil {
		return Submitted{}, err
	}
	first, err := market.EncodeBatch(t.cfg.Now(), []market.Command{{Kind: market.Submit, By: signed.Spec.Submitter, Data: signed.Raw}})
	if err != nil {
		return Submitted{}, err
	}
	kept := make(chan error, 1)
	if !t.start(func() { kept <- t.keepNamed(ctx, changes) }) {
		return Submitted{}, ErrClosed
	}
	g, reply, err := t.cfg.Quorum.Found(ctx, quorum.GroupID(id), KindJob, voters, first)
	if keepErr := <-kept; err == nil {
		err = keepErr
	}
	if err == nil {
		err = entered(reply)
	}
	if err == nil {
		err = ctx.Err() // who asks has gone: nobody would hear its name, and so nobody could end it
	}
	if err != nil && !errors.Is(err, quorum.ErrExists) { // what is there then is an earlier submission's
		t.start(func() { t.undo(id, g) })
	}
	if err != nil {
		return Submitted{}, err
	}
	return t.submitted(ctx, g), nil
}

// entered reads what the stewards' ledger says of a submission.
func entered(reply []byte) error {
	status, err := statusIn(reply)
	switch {
	case err != nil:
		return err
	case status != market.Accepted && status != market.Repeated:
		return fmt.Errorf("its stewards say: %v", status)
	}
	return nil
}

// undo takes back what a submission that failed has left.
func (t *Tasks) undo(id job.ID, g *quorum.Group) {
	ctx, cancel := context.WithTimeout(t.ctx, submitWait)
	defer cancel()
	if err := t.forget(ctx, id); err != nil {
		t.log.Info("tasks: records of a failed submission", "job", id.Short(), "err", err)
	}
	if g != nil {
		if err := g.Dissolve(ctx); err != nil {
			t.log.Info("tasks: the group of a failed submission", "job", id.Short(), "err", err)
		}
	}
}

// submitted describes a job that was just entered.
func (t *Tasks) submitted(ctx context.Context, g *quorum.Group) Submitted {
	end := time.Now().Add(spareWait)
	for wait := spareLook; ; wait *= 2 {
		st := g.Status()
		out := Submitted{ID: job.ID(g.ID()), Stewards: votersOf(st), Spare: spareOf(st)}
		if n := len(out.Stewards); out.Spare >= n-(n/2+1) || time.Now().After(end) || pause(ctx, wait) != nil {
			return out
		}
	}
}

// namedIn makes the records that list the pieces that a spec names.
func (t *Tasks) namedIn(ctx context.Context, signed *job.Signed) ([]directory.Change, error) {
	pieces, err := t.named(ctx, &signed.Spec)
	if err != nil {
		return nil, err
	}
	changes := keep.Lists(signed.ID, pieces)
	if len(changes) > recordsMax {
		return nil, fmt.Errorf("%w: it names %d pieces, the limit is %d", ErrSpec, len(pieces), recordsMax*keep.ListMax)
	}
	return changes, nil
}

func (t *Tasks) keepNamed(ctx context.Context, changes []directory.Change) error {
	if len(changes) == 0 {
		return nil
	}
	return t.cfg.Records.Write(ctx, changes...)
}

// named lists the pieces of a job's program and inputs.
func (t *Tasks) named(ctx context.Context, spec *job.Spec) (out []piece.Piece, err error) {
	seen := map[chunk.CID]bool{}
	add := func(f job.File) {
		for _, p := range f.All() {
			if !seen[p.ID] {
				seen[p.ID] = true
				out = append(out, piece.Piece{ID: p.ID, Size: p.Size})
			}
		}
	}
	add(spec.Command.Module)
	if spec.Reduce != nil {
		add(spec.Reduce.Module)
	}
	for _, in := range spec.Inputs {
		add(in.File)
	}
	add(spec.Stdin.File)
	add(spec.Split.File)
	if spec.Split.Kind != job.Items && spec.Split.Kind != job.List {
		return out, nil
	}
	items, err := t.items(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer items.close()
	for task := range spec.Tasks() {
		it, err := items.at(task)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSpec, err)
		}
		for _, in := range it.Inputs {
			add(in.File)
		}
	}
	return out, nil
}

// handOver has a member that lends make a steward of itself: what a peer does whose role is to give commands only.
func (t *Tasks) handOver(ctx context.Context, signed *job.Signed) (Submitted, error) {
	err := error(ErrUnreachable)
	for _, c := range t.candidates() {
		if c.Self || !c.Reachable {
			continue
		}
		var a *pb.Answer
		if a, err = t.ask(ctx, c.ID, &pb.Ask{Kind: talk.AskSubmit, Data: signed.Raw}); err == nil {
			return submittedOf(signed.ID, a.GetSubmitted())
		}
		var r *talk.Refusal
		if refused := errors.As(err, &r); refused && r.Code == talk.BadSpec || ctx.Err() != nil {
			return Submitted{}, known(err)
		} else if !refused && !errors.Is(err, errNotAsked) {
			// The answer was lost, and it may have been submitted. Another member would make a second group of the same id.
			return Submitted{}, fmt.Errorf("it is not known whether %s has submitted job %s: %w", t.name(c.ID), signed.ID.Short(), err)
		}
	}
	return Submitted{}, errors.Join(ErrUnreachable, err)
}

func submittedOf(id job.ID, m *pb.Submitted) (Submitted, error) {
	stewards, err := talk.PeersOf(m.GetStewards(), market.StewardsMax)
	if err != nil || m.GetSpare() > market.StewardsMax {
		return Submitted{}, fmt.Errorf("tasks: a bad answer to a submission: %w", err)
	}
	return Submitted{ID: id, Stewards: stewards, Spare: int(m.GetSpare())}, nil
}

// answerSubmit makes this peer a steward of another member's job.
func (t *Tasks) answerSubmit(ctx context.Context, from peer.ID, raw []byte, emit func(*pb.Answer) error) error {
	signed, err := job.Decode(raw)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrSpec, err)
	case signed.Spec.Submitter != from || signed.Spec.Pool != t.cfg.Pool:
		return fmt.Errorf("%w: it is not the asker's", ErrSpec)
	case t.role(t.self) < ident.RoleMember:
		return ErrRole
	}
	ctx, cancel := context.WithTimeout(ctx, submitWait)
	defer cancel()
	out, err := t.launch(ctx, signed, false)
	if errors.Is(err, quorum.ErrExists) {
		if s := t.seat(signed.ID); s != nil && s.ledger.Job() != nil { // the same again
			out, err = t.submitted(ctx, s.group), nil
		}
	}
	if err != nil {
		return err
	}
	return emit(&pb.Answer{Submitted: &pb.Submitted{Job: out.ID[:], Stewards: talk.Peers(out.Stewards), Spare: uint32(out.Spare)}})
}
