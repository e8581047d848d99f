package pool

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
)

const (
	stateFile = "pool"
	stateMode = 0o600 // it holds the pool's secret
	// stateMax bounds the file, in bytes: RecordsMax records of ordinary size, and places for as many.
	stateMax = 16 << 20

	// secretsMax is how many of the pool's secrets are kept: the newest, and earlier ones to know members by who slept
	// through the change.
	secretsMax = 4
	// invitationsMax bounds the invitations that are open at one time.
	invitationsMax = 256
	// placesMax bounds the members whose addresses are kept, and placeAddrs the addresses of one.
	placesMax  = 1024
	placeAddrs = 8
	// addrMax bounds one binary address, in bytes.
	addrMax = 256
)

// StateError says that the pool's file is there and cannot be used. Nothing was changed.
type StateError struct {
	Path string
	Err  error
}

func (e *StateError) Error() string {
	return fmt.Sprintf("pool: the file %s cannot be used: %v", e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *StateError) Unwrap() error { return e.Err }

// Hint says what the owner can do next.
func (e *StateError) Hint() string {
	return fmt.Sprintf("restore %s from a backup, or move it away to begin a new pool (to return to the old one, join it again)", e.Path)
}

// secret is one of the pool's secrets.
type secret struct {
	number uint64
	key    [32]byte
}

// invitation is one that this peer gave out. The ticket's secret is not kept, only the key that follows from it.
type invitation struct {
	id      [16]byte
	key     [32]byte
	role    ident.Role
	expires time.Time
	uses    int
	usedBy  []peer.ID
}

// place is where a member was reached, and when it was last heard of.
type place struct {
	addrs []multiaddr.Multiaddr
	seen  time.Time
}

// state is what a peer keeps of its pool. It belongs to the pool's own goroutine.
type state struct {
	origin      ident.Origin
	records     []ident.Record
	secrets     []secret // the newest first
	invitations []invitation
	places      map[peer.ID]place
}

func statePath(home string) string { return filepath.Join(home, stateFile) }

// loadState reads the file. The error is fs.ErrNotExist when there is none, and otherwise a *StateError: a membership is
// never thrown away by itself.
func loadState(home string) (*state, error) {
	path := statePath(home)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, &StateError{path, err}
	}
	defer f.Close() // only read from
	raw, err := io.ReadAll(io.LimitReader(f, stateMax+1))
	if err == nil && len(raw) > stateMax {
		err = errors.New("it is too large")
	}
	if err != nil {
		return nil, &StateError{path, err}
	}
	s, err := decodeState(raw)
	if err != nil {
		return nil, &StateError{path, err}
	}
	return s, nil
}

// decodeState parses the file. A record that does not parse is left out: a newer build may have written kinds that this
// one does not know.
func decodeState(raw []byte) (*state, error) {
	var m pb.State
	if err := proto.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	origin, err := ident.ParseOrigin(m.GetOrigin())
	if err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	s := &state{origin: origin, places: decodePlaces(m.GetPlaces())}
	if s.secrets, err = decodeSecrets(m.GetSecrets()); err != nil || len(s.secrets) == 0 {
		return nil, errors.New("it is damaged: it has no secret")
	}
	s.records = parseRecords(m.GetRecords(), roster.RecordsMax)
	for _, in := range m.GetInvitations() {
		if i, ok := decodeInvitation(in); ok && len(s.invitations) < invitationsMax {
			s.invitations = append(s.invitations, i)
		}
	}
	return s, nil
}

// parseRecords reads those of a list that are sound, at most limit.
func parseRecords(raws [][]byte, limit int) (out []ident.Record) {
	for _, raw := range raws[:min(len(raws), limit)] {
		if rec, err := ident.ParseRecord(raw); err == nil {
			out = append(out, rec)
		}
	}
	return out
}

// newRecords reads those of a list from another member that this peer does not hold. What it holds has been checked already:
// a signature takes a tenth of a millisecond, and most of what members send again is known.
func (p *Pool) newRecords(raws [][]byte) []ident.Record {
	view := p.view()
	var fresh [][]byte
	for _, raw := range raws {
		if !view.Holds(sha256.Sum256(raw)) {
			fresh = append(fresh, raw)
		}
	}
	return parseRecords(fresh, roster.RecordsMax)
}

func decodeSecrets(list []*pb.Secret) (out []secret, err error) {
	for _, s := range list[:min(len(list), secretsMax)] {
		if len(s.GetKey()) != 32 {
			return nil, errors.New("a secret of a wrong length")
		}
		out = append(out, secret{s.GetNumber(), [32]byte(s.GetKey())})
	}
	return out, nil
}

func encodeSecrets(list []secret) (out []*pb.Secret) {
	for _, s := range list {
		out = append(out, &pb.Secret{Number: s.number, Key: s.key[:]})
	}
	return out
}

func decodeInvitation(m *pb.Invitation) (invitation, bool) {
	i := invitation{role: ident.Role(m.GetRole()), expires: time.Unix(m.GetExpires(), 0), uses: int(m.GetUses())}
	if len(m.GetId()) != len(i.id) || len(m.GetKey()) != len(i.key) || !i.role.Valid() {
		return invitation{}, false
	}
	i.id, i.key = [16]byte(m.GetId()), [32]byte(m.GetKey())
	for _, raw := range m.GetUsedBy() {
		i.usedBy = append(i.usedBy, peer.ID(raw))
	}
	return i, true
}

func decodePlaces(list []*pb.Place) map[peer.ID]place {
	out := make(map[peer.ID]place)
	for _, m := range list[:min(len(list), placesMax)] {
		id := peer.ID(m.GetPeer())
		if id.Validate() != nil {
			continue
		}
		pl := place{addrs: parseAddrs(m.GetAddrs())}
		if m.GetSeen() > 0 {
			pl.seen = time.Unix(m.GetSeen(), 0).UTC()
		}
		out[id] = pl
	}
	return out
}

// parseAddrs reads those of a list of binary addresses that this build knows.
func parseAddrs(raws [][]byte) (out []multiaddr.Multiaddr) {
	for _, raw := range raws[:min(len(raws), placeAddrs)] {
		if len(raw) == 0 || len(raw) > addrMax {
			continue
		}
		if a, err := multiaddr.NewMultiaddrBytes(raw); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func encodeAddrs(addrs []multiaddr.Multiaddr) (out [][]byte) {
	for _, a := range addrs {
		if raw := a.Bytes(); len(raw) <= addrMax && len(out) < placeAddrs {
			out = append(out, raw)
		}
	}
	return out
}

// encode writes the state down, in one order.
func (s *state) encode() *pb.State {
	m := &pb.State{Origin: s.origin.Marshal(), Secrets: encodeSecrets(s.secrets), Places: encodePlaces(s.places)}
	for _, r := range s.records {
		m.Records = append(m.Records, r.Raw())
	}
	for _, i := range s.invitations {
		in := &pb.Invitation{Id: i.id[:], Key: i.key[:], Role: uint32(i.role), Expires: i.expires.Unix(), Uses: uint32(i.uses)}
		for _, p := range i.usedBy {
			in.UsedBy = append(in.UsedBy, []byte(p))
		}
		m.Invitations = append(m.Invitations, in)
	}
	return m
}

func encodePlaces(places map[peer.ID]place) (out []*pb.Place) {
	for id, pl := range places {
		m := &pb.Place{Peer: []byte(id), Addrs: encodeAddrs(pl.addrs)}
		if !pl.seen.IsZero() {
			m.Seen = pl.seen.Unix()
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *pb.Place) int { return slices.Compare(a.Peer, b.Peer) })
	return out[:min(len(out), placesMax)]
}

// save writes the file so that after a crash it is either the old or the new one, whole.
func (s *state) save(home string) error {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.encode())
	if err != nil {
		return fmt.Errorf("pool: save: %w", err)
	}
	if len(raw) > stateMax {
		return fmt.Errorf("pool: save: %d bytes, the limit is %d", len(raw), stateMax)
	}
	if err := writeAtomically(statePath(home), raw); err != nil {
		return fmt.Errorf("pool: save: %w", err)
	}
	return nil
}

// writeAtomically writes and syncs a file beside path, and puts it in its place.
func writeAtomically(path string, raw []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Chmod(stateMode)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the new name survive a power cut. Windows cannot open a folder for this, and does not need it.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
