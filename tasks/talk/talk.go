// Package talk owns what peers say to each other about jobs: the announcements of the topic "jobs", the messages of
// /shoal/market/1 (a worker's standing stream, and questions that any member may ask) and of /shoal/log/1 (what a task writes while
// it runs). It turns market's values into protobuf and back.
//
// What comes from others is held against every bound that is listed here or with market's messages; what passes may be handed to the
// machines. The package opens no stream and decides nothing.
package talk

import (
	"bytes"
	"fmt"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

// The protocols' ids.
const (
	Market protocol.ID = "/shoal/market/1"
	Log    protocol.ID = "/shoal/log/1"
)

const (
	// FrameMax bounds a message of either protocol, in bytes: 64 results of 6 KiB fit, and a signed spec.
	FrameMax = 1 << 20
	// AskMax bounds a question, and an opening.
	AskMax = job.SignedMax + 4<<10
	// AdMax bounds an announcement.
	AdMax = 8 << 10
	// AdsMax bounds the announcements in one answer.
	AdsMax = 64
	// StandingMax bounds the leases that a view lists.
	StandingMax = 4096
	// ClosedMax bounds the runs of closed tasks in one piece of news.
	ClosedMax = 8192
	// ResultsMax bounds the results in one answer.
	ResultsMax = 64
	// PieceMax bounds a piece of output, in bytes.
	PieceMax = 64 << 10
	// verdictsMax bounds what an order revokes, and its verdicts: a worker holds at most HeldMax, and may ask again.
	verdictsMax = 8 * market.HeldMax
	// durationMax bounds a running time in microseconds, so that it fits into a duration.
	durationMax = uint64(math.MaxInt64 / int64(time.Microsecond))
	// timeMax bounds a time in milliseconds since 1970.
	timeMax = 1 << 43
)

func malformed(format string, args ...any) error { return wire.Errorf(wire.Malformed, format, args...) }

// JobOf reads a job's id.
func JobOf(raw []byte) (job.ID, error) {
	if len(raw) != len(job.ID{}) {
		return job.ID{}, malformed("a job id of %d bytes", len(raw))
	}
	return job.ID(raw), nil
}

// PeerOf reads a peer's id; none is "".
func PeerOf(raw []byte) (peer.ID, error) {
	if len(raw) == 0 {
		return "", nil
	}
	if len(raw) > 64 {
		return "", malformed("a peer id of %d bytes", len(raw))
	}
	id, err := peer.IDFromBytes(raw)
	if err != nil {
		return "", malformed("a peer id: %v", err)
	}
	return id, nil
}

// PeersOf reads a list of at most limit peers.
func PeersOf(raw [][]byte, limit int) (out []peer.ID, err error) {
	if len(raw) > limit {
		return nil, malformed("%d peers", len(raw))
	}
	for _, b := range raw {
		id, err := PeerOf(b)
		if err != nil || id == "" {
			return nil, malformed("a list of peers: %v", err)
		}
		out = append(out, id)
	}
	return out, nil
}

// Peers writes what PeersOf reads.
func Peers(ids []peer.ID) (out [][]byte) {
	for _, id := range ids {
		out = append(out, []byte(id))
	}
	return out
}

// AdMessage writes an announcement.
func AdMessage(a *market.Ad) *pb.Ad {
	return &pb.Ad{
		Job: a.Job[:], Submitter: []byte(a.Submitter), Term: a.Term, Seq: a.Seq, Open: a.Open, Stewards: Peers(a.Stewards),
		Leader: []byte(a.Leader), Kind: uint32(a.Needs.Kind), Cores: uint32(a.Needs.Cores), Memory: uint64(a.Needs.Memory),
		Labels: a.Needs.Labels, Priority: int32(a.Priority), Exclusive: a.Exclusive, Crowd: a.Crowd,
	}
}

// AdFrom reads an announcement.
func AdFrom(m *pb.Ad) (*market.Ad, error) {
	id, err := JobOf(m.GetJob())
	if err != nil {
		return nil, err
	}
	a := &market.Ad{
		Job: id, Term: m.GetTerm(), Seq: m.GetSeq(), Open: m.GetOpen(), Priority: int(m.GetPriority()), Exclusive: m.GetExclusive(),
		Crowd: m.GetCrowd(),
		Needs: market.Needs{Kind: job.Kind(m.GetKind()), Cores: int(m.GetCores()), Memory: int64(m.GetMemory()), Labels: m.GetLabels()},
	}
	switch {
	case m.GetTerm() == 0 || m.GetSeq() == 0 || m.GetOpen() > job.TasksMax+1:
		return nil, malformed("an announcement of term %d, %d, of %d tasks", m.GetTerm(), m.GetSeq(), m.GetOpen())
	case m.GetKind() == 0 || m.GetKind() > math.MaxUint8 || m.GetCores() > job.CoresMax || m.GetMemory() > job.MemoryMax:
		return nil, malformed("an announcement that needs too much")
	case len(m.GetLabels()) > job.NeedsMax || m.GetPriority() > job.PriorityMx || m.GetPriority() < -job.PriorityMx:
		return nil, malformed("an announcement with too many needs")
	}
	for _, l := range m.GetLabels() {
		if len(l) > job.NameMax {
			return nil, malformed("a label of %d bytes", len(l))
		}
	}
	if a.Stewards, err = PeersOf(m.GetStewards(), market.StewardsMax); err != nil {
		return nil, err
	}
	if a.Submitter, err = PeerOf(m.GetSubmitter()); err != nil {
		return nil, err
	}
	if a.Leader, err = PeerOf(m.GetLeader()); err != nil {
		return nil, err
	}
	if a.Submitter == "" || a.Leader == "" {
		return nil, malformed("an announcement of nobody")
	}
	return a, nil
}

// EncodeAd writes an announcement for the topic.
func EncodeAd(a *market.Ad) ([]byte, error) {
	raw, err := encode(AdMessage(a))
	if err == nil && len(raw) > AdMax {
		err = fmt.Errorf("%d bytes, the limit is %d", len(raw), AdMax)
	}
	if err != nil {
		return nil, fmt.Errorf("talk: announcement: %w", err)
	}
	return raw, nil
}

func encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// DecodeAd reads what EncodeAd wrote, and nothing that is encoded otherwise.
func DecodeAd(raw []byte) (*market.Ad, error) {
	if len(raw) > AdMax {
		return nil, malformed("an announcement of %d bytes", len(raw))
	}
	var m pb.Ad
	if err := proto.Unmarshal(raw, &m); err != nil {
		return nil, malformed("an announcement: %v", err)
	}
	a, err := AdFrom(&m)
	if err != nil {
		return nil, err
	}
	if again, err := EncodeAd(a); err != nil || !bytes.Equal(again, raw) {
		return nil, malformed("an announcement that is encoded otherwise than it must be")
	}
	return a, nil
}
