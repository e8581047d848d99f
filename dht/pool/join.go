package pool

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
)

// Wins says what becomes of this peer's own pool when it joins another.
type Wins uint8

// The choices. The zero value makes Join ask, by failing with ErrWhichWins, when the own pool is not empty.
const (
	WinsUnsaid Wins = iota
	// WinsTheirs leaves the own pool, and what its names say is forgotten here. Its other members keep it.
	WinsTheirs
	// WinsOurs stays: Join fails with an error that says to invite the other peer instead. It is here so that a person's
	// answer can be passed on as it is.
	WinsOurs
)

// ErrWhichWins says that this peer's own pool has other members or files, and that it was not said what becomes of them.
var ErrWhichWins = errors.New("this peer's own pool has other members or files: say which of the two pools wins")

// ErrOursWins says that nothing was joined, as was asked for.
var ErrOursWins = errors.New("this peer stays in its own pool: invite the other one with shoal invite instead")

// ErrAlreadyIn says that this peer is a member of the ticket's pool.
var ErrAlreadyIn = errors.New("this peer is a member of that pool already")

// JoinOptions says how to join.
type JoinOptions struct {
	Wins Wins
	// Confirm, when set, is shown the check words and may refuse; the inviter sees the same words.
	Confirm func(words string) bool
}

// Joined says what came of a Join.
type Joined struct {
	Pool    ident.PoolID
	Name    string // of this peer in the pool
	Role    ident.Role
	Inviter string // its name
	Words   string
}

// Join turns a ticket into a membership, in place of the present one. On success the home holds the new membership and
// this Pool is over: it refuses everything until it is closed, and Open begins the new one. On failure nothing changed.
//
// The error is a *Refusal when either side refuses, or one of the errors of this file.
func (p *Pool) Join(ctx context.Context, t ident.Ticket, o JoinOptions) (Joined, error) {
	if t.Inviter == p.cfg.Identity.ID {
		return Joined{}, fmt.Errorf("pool: join: %w", refuse(roster.TicketForeign, "the ticket is this peer's own"))
	}
	if err := p.mayLeaveFor(t, o.Wins); err != nil {
		return Joined{}, fmt.Errorf("pool: join: %w", err)
	}
	if now := p.clock.wall(); !now.Before(t.Expires) {
		return Joined{}, fmt.Errorf("pool: join: %w", refuse(roster.TicketExpired, "on %s", t.Expires.Format("2006-01-02 15:04 MST")))
	}
	st, joined, err := p.ask(ctx, t, o.Confirm)
	if err != nil {
		return Joined{}, fmt.Errorf("pool: join: %w", err)
	}
	if err := p.moveTo(ctx, st); err != nil {
		return Joined{}, fmt.Errorf("pool: join: %w", err)
	}
	return joined, nil
}

// mayLeaveFor reports why this peer should not change its pool unasked.
func (p *Pool) mayLeaveFor(t ident.Ticket, w Wins) error {
	standing := p.Standing()
	if t.Pool == p.id && standing == roster.OK {
		return ErrAlreadyIn
	}
	others := len(p.Members()) > 1 && standing == roster.OK
	files := p.cfg.Files != nil && p.cfg.Files() > 0
	switch {
	case w == WinsOurs:
		return ErrOursWins
	case (others || files) && w != WinsTheirs && t.Pool != p.id:
		return ErrWhichWins
	default:
		return nil
	}
}

// ask runs the joiner's side of the handshake.
func (p *Pool) ask(ctx context.Context, t ident.Ticket, confirm func(string) bool) (*state, Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, joinPeople)
	defer cancel()
	// Direct, because a relay carries members only, and because libp2p otherwise refuses to dial an address again that failed
	// lately, for up to five minutes: whoever asks once more means it.
	dial := network.WithForceDirectDial(ctx, "join")
	if err := p.cfg.Host.Connect(dial, t.Info()); err != nil {
		return nil, Joined{}, fmt.Errorf("the inviter cannot be reached: %w", err)
	}
	s, err := p.cfg.Host.NewStream(dial, t.Inviter, JoinProtocol)
	if err != nil {
		return nil, Joined{}, fmt.Errorf("the inviter cannot be reached: %w", err)
	}
	defer func() { _ = s.Reset() }()
	var st *state
	var joined Joined
	err = within(ctx, s, func() (err error) { st, joined, err = p.handshake(s, t, confirm); return err })
	return st, joined, err
}

func (p *Pool) handshake(s network.Stream, t ident.Ticket, confirm func(string) bool) (*state, Joined, error) {
	key := ticketKey(t.Secret)
	tr := transcript{
		pool: t.Pool, ticket: t.Secret.ID(), inviter: t.Inviter, joiner: p.cfg.Identity.ID,
		begin: make([]byte, joinNonce), name: ident.CleanName(p.cfg.Identity.Name),
	}
	_, _ = rand.Read(tr.begin) // never fails, see crypto/rand
	begin := &pb.Begin{Pool: t.Pool[:], Ticket: tr.ticket[:], Nonce: tr.begin, Name: tr.name}
	if err := wire.WriteMsg(s, begin, joinMsgMax); err != nil {
		return nil, Joined{}, err
	}
	var c pb.Challenge
	if err := wire.ReadMsg(s, &c, joinMsgMax+verdictMax); err != nil {
		return nil, Joined{}, err
	}
	if r := fromVerdict(c.GetVerdict()); r != nil {
		return nil, Joined{}, r
	}
	tr.answer = c.GetNonce()
	if len(tr.answer) != joinNonce || !tr.proves(key, labelInviter, c.GetProof()) {
		return nil, Joined{}, refuse(roster.BadProof, "the inviter does not know the ticket's secret")
	}
	words := tr.words(key)
	if confirm != nil && !confirm(words) {
		return nil, Joined{}, refuse(roster.Declined, "the words differ")
	}
	if err := wire.WriteMsg(s, &pb.Proof{Proof: tr.proof(key, labelJoiner)}, joinMsgMax); err != nil {
		return nil, Joined{}, err
	}
	var w pb.Welcome
	if err := wire.ReadMsg(s, &w, welcomeMax); err != nil {
		return nil, Joined{}, err
	}
	if r := fromVerdict(w.GetVerdict()); r != nil {
		return nil, Joined{}, r
	}
	return p.accept(&w, t, words)
}

// accept checks a welcome as though a stranger had sent it: that it is about the ticket's pool, and that by its own
// records this peer is a member.
func (p *Pool) accept(w *pb.Welcome, t ident.Ticket, words string) (*state, Joined, error) {
	self := p.cfg.Identity.ID
	origin, err := ident.ParseOrigin(w.GetOrigin())
	if err != nil {
		return nil, Joined{}, err
	}
	if origin.ID() != t.Pool {
		return nil, Joined{}, refuse(roster.TicketForeign, "the inviter speaks for another pool")
	}
	r := roster.New(roster.Config{Origin: origin, Self: self})
	r.Step(p.clock.moment(), roster.Learn{Records: parseRecords(w.GetRecords(), roster.RecordsMax)})
	view, now := r.View(), p.clock.wall()
	me, reason := view.Judge(self, now)
	if reason != roster.OK {
		return nil, Joined{}, p.explain(me, reason)
	}
	st := &state{origin: origin, records: view.Records(), places: decodePlaces(w.GetPlaces())}
	if st.secrets, err = welcomeSecrets(w.GetSecrets(), view); err != nil {
		return nil, Joined{}, err
	}
	inviter, _ := view.Judge(t.Inviter, now)
	return st, Joined{Pool: t.Pool, Name: me.Name, Role: me.Role, Inviter: inviter.Name, Words: words}, nil
}

// welcomeSecrets checks the secrets against the notice. The inviter may itself still wait for the newest; then that comes
// later, over a link.
func welcomeSecrets(list []*pb.Secret, view *roster.View) ([]secret, error) {
	secrets, err := decodeSecrets(list)
	if err != nil {
		return nil, err
	}
	notice, ok := view.Notice()
	if !ok || len(secrets) == 0 {
		return nil, errSecret
	}
	fits := slices.ContainsFunc(secrets, func(s secret) bool { return ident.SecretSum(s.key) == notice.Sum })
	if !fits && secrets[0].number >= notice.Number {
		return nil, errSecret
	}
	return secrets, nil
}

// moveTo says goodbye to the present pool and puts another membership, or with nil none, into the home.
func (p *Pool) moveTo(ctx context.Context, st *state) error {
	if _, err := p.depart(ctx); err != nil {
		return err
	}
	return p.try(ctx, func() error {
		if st == nil {
			if err := removeState(p.cfg.Home); err != nil {
				return err
			}
		} else if err := st.save(p.cfg.Home); err != nil {
			return err
		}
		p.retired.Store(true)
		p.stopLinks()
		return nil
	})
}
