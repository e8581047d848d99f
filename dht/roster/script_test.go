package roster

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/golden"
	"github.com/shoal-os/shoal/dht/ident"
)

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// world makes keys from names, so that transcripts are the same each time.
type world struct {
	t      testing.TB
	keys   map[string]crypto.PrivKey
	names  map[peer.ID]string
	origin ident.Origin
}

func newWorld(t testing.TB, genesis string) *world {
	w := &world{t: t, keys: make(map[string]crypto.PrivKey), names: make(map[peer.ID]string)}
	w.origin = ident.Origin{Genesis: w.id(genesis)}
	return w
}

func (w *world) key(name string) crypto.PrivKey {
	if k := w.keys[name]; k != nil {
		return k
	}
	seed := make([]byte, 64)
	copy(seed, name)
	k, _, err := crypto.GenerateEd25519Key(bytes.NewReader(seed))
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		w.t.Fatal(err)
	}
	w.keys[name], w.names[id] = k, name
	return k
}

func (w *world) id(name string) peer.ID {
	id, err := peer.IDFromPrivateKey(w.key(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) ids(list string) (out []peer.ID) {
	for _, name := range strings.Split(list, ",") {
		if name != "" {
			out = append(out, w.id(name))
		}
	}
	slices.Sort(out)
	return out
}

func must[R ident.Record](t testing.TB) func(R, error) ident.Record {
	return func(r R, err error) ident.Record {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func (w *world) cert(who, by string, serial uint64, role ident.Role, from time.Time, life time.Duration) ident.Record {
	c := ident.Certificate{Peer: w.id(who), Name: who, Role: role, Serial: serial, NotBefore: from, NotAfter: from.Add(life)}
	c.Pool = w.origin.ID()
	return must[ident.Certificate](w.t)(ident.IssueCertificate(w.key(by), c))
}

func (w *world) appoint(who, by string) ident.Record {
	return must[ident.Appointment](w.t)(ident.IssueAppointment(w.key(by), w.origin.ID(), w.id(who), start))
}

func (w *world) evict(who, by, keep string, at time.Time) ident.Record {
	return must[ident.Revocation](w.t)(ident.IssueRevocation(w.key(by), w.origin.ID(), w.id(who), w.ids(keep), at))
}

// script runs the lines of a transcript: "self NAME" first, then events, each after an optional "+DURATION".
type script struct {
	*world
	r    *Roster
	now  Moment
	self string
}

func (s *script) run(line string) string {
	words := strings.Fields(line)
	if d, ok := strings.CutPrefix(words[0], "+"); ok {
		step, err := time.ParseDuration(d)
		if err != nil {
			s.t.Fatal(err)
		}
		s.now.Boot += step
		s.now.Wall = s.now.Wall.Add(step)
		words = words[1:]
	}
	option := make(map[string]string)
	for i := 1; i+1 < len(words); i++ {
		option[words[i]] = words[i+1]
	}
	switch words[0] {
	case "self":
		s.self = words[1]
		s.r = New(Config{Origin: s.origin, Self: s.id(s.self)})
		return ""
	case "wall": // the clock of the wall leaps
		d, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.now.Wall = s.now.Wall.Add(d)
		return ""
	case "members":
		return s.members()
	case "judge":
		_, reason := s.r.View().Judge(s.id(words[1]), s.now.Wall)
		return "\t" + reason.String() + "\n"
	case "run": // as many ticks as the shell would make
		d, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		return s.ticks(d, s.ids(option["hearing"]))
	}
	return s.show(s.r.Step(s.now, s.event(words, option)))
}

func (s *script) ticks(d time.Duration, hearing []peer.ID) (out string) {
	for end := s.now.Boot + d; s.now.Boot < end; {
		s.now.Boot += BeatEvery
		s.now.Wall = s.now.Wall.Add(BeatEvery)
		for _, id := range hearing {
			out += s.show(s.r.Step(s.now, Beat{Peer: id}))
		}
		out += s.show(s.r.Step(s.now, Tick{}))
	}
	return out
}

func (s *script) event(words []string, option map[string]string) Event {
	switch words[0] {
	case "beat":
		b := Beat{Peer: s.id(words[1])}
		if cores, err := strconv.Atoi(option["cores"]); err == nil {
			b.Lends = &Lends{Cores: uint32(cores), Version: "1\x1b[2J"}
		}
		return b
	case "bye":
		return Bye{Peer: s.id(words[1])}
	case "woke":
		return Woke{}
	case "tick":
		return Tick{}
	case "learn":
		return Learn{Records: []ident.Record{s.record(words[1:], option)}}
	}
	s.t.Fatalf("unknown line %q", words)
	return nil
}

func (s *script) record(words []string, option map[string]string) ident.Record {
	who, by := words[1], option["by"]
	serial, _ := strconv.ParseUint(option["serial"], 10, 64)
	switch words[0] {
	case "cert":
		life := ident.CertificateLife
		if d, err := time.ParseDuration(option["life"]); err == nil {
			life = d
		}
		from := s.now.Wall
		if d, err := time.ParseDuration(option["from"]); err == nil {
			from = from.Add(d)
		}
		role := ident.RoleMember
		if r, err := ident.ParseRole(option["role"]); err == nil {
			role = r
		}
		return s.cert(who, by, serial, role, from, life)
	case "appoint":
		return s.appoint(who, by)
	case "evict":
		return s.evict(who, by, option["keep"], s.now.Wall)
	case "left":
		return must[ident.Departure](s.t)(ident.IssueDeparture(s.key(who), s.origin.ID(), serial, s.now.Wall))
	case "notice":
		n, _ := strconv.ParseUint(who, 10, 64)
		return must[ident.Notice](s.t)(ident.IssueNotice(s.key(by), s.origin.ID(), n, [32]byte{byte(n)}, s.now.Wall))
	case "foreign":
		c := ident.Certificate{Peer: s.id(who), Name: who, Role: ident.RoleMember, NotBefore: s.now.Wall, NotAfter: s.now.Wall.Add(time.Hour)}
		return must[ident.Certificate](s.t)(ident.IssueCertificate(s.key(by), c))
	}
	s.t.Fatalf("unknown record %q", words)
	return nil
}

func (s *script) show(o Out) string {
	var b strings.Builder
	for _, r := range o.Save {
		fmt.Fprintf(&b, "\tsave and spread %s\n", s.key2name(r.Key()))
	}
	for _, id := range o.Close {
		fmt.Fprintf(&b, "\tclose %s\n", s.names[id])
	}
	for _, c := range o.Changes {
		was := "-"
		if c.Was.ID != "" {
			was = brief(c.Was)
		}
		fmt.Fprintf(&b, "\t%s: %s => %s\n", s.names[c.Now.ID], was, brief(c.Now))
	}
	for _, r := range o.Rejected {
		fmt.Fprintf(&b, "\trejected %s: %s\n", s.key2name(r.Record.Key()), r.Reason)
	}
	if o.Renew {
		fmt.Fprintf(&b, "\trenew\n")
	}
	return b.String()
}

// key2name puts names in place of peer ids.
func (s *script) key2name(key string) string {
	for id, name := range s.names {
		key = strings.ReplaceAll(key, id.String(), name)
	}
	return key
}

func brief(m Member) string {
	if m.Standing != OK {
		return fmt.Sprintf("%s (%s)", m.State, m.Standing)
	}
	return fmt.Sprintf("%s %s", m.Role, m.State)
}

func (s *script) members() (out string) {
	for _, m := range append(s.r.View().Members(), s.r.View().Former()...) {
		out += fmt.Sprintf("\t%s: %s", s.names[m.ID], brief(m))
		if m.Lends != (Lends{}) {
			out += fmt.Sprintf(", lends %d cores, version %q", m.Lends.Cores, m.Lends.Version)
		}
		out += "\n"
	}
	if n, ok := s.r.View().Notice(); ok {
		out += fmt.Sprintf("\tsecret %d by %s\n", n.Number, s.names[n.Signer])
	}
	if s.r.View().Grace() {
		out += "\tjudging nobody\n"
	}
	return out
}

// TestTranscripts replays testdata/*.txt: events at the left margin, what followed indented. Comments begin with #.
func TestTranscripts(t *testing.T) {
	golden.Transcripts(t, func(t *testing.T, lines []string) []byte {
		s := &script{world: newWorld(t, "anna"), now: Moment{Boot: time.Hour, Wall: start}}
		var got bytes.Buffer
		for _, line := range lines {
			got.WriteString(line + "\n")
			if line != "" && !strings.HasPrefix(line, "#") {
				got.WriteString(s.run(line))
			}
		}
		return got.Bytes()
	})
}
