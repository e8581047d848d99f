package scale

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// Measured is what real hosts cost, as testnet/bench measured it on one machine. It is kept beside the page, because a
// quarter of an hour of a quiet machine is needed to make it anew.
type Measured struct {
	Machine string `json:"machine"`
	Go      string `json:"go"`
	Pools   []Pool `json:"pools"`
	Tables  []Kad  `json:"tables"`
}

// Pool is a pool of so many members, all in one process on loopback, each with a link to each other one.
type Pool struct {
	Peers int `json:"peers"`

	JoinSeconds float64 `json:"join_s"`     // until all had joined and saw all others
	JoinCPU     float64 `json:"join_cpu_s"` // of all together
	Memory      float64 `json:"memory"`     // bytes of heap and stacks in use, a peer

	Idle    []Flow  `json:"idle"`     // by protocol, while nothing happens
	IdleCPU float64 `json:"idle_cpu"` // seconds of CPU in a second, a peer
	Watched float64 `json:"watched_s"`

	Gossip  Spread `json:"gossip"`  // messages of one topic, from members by turns
	Records Spread `json:"records"` // records of the directory, from one member, one at a time
}

// Flow is what a peer sends of one protocol in a second.
type Flow struct {
	Protocol string  `json:"protocol"`
	Bytes    float64 `json:"bytes_s"`    // of streams, without TLS, multiplexing and TCP
	Writes   float64 `json:"messages_s"` // each message is one write
}

// Spread is what it cost to bring messages to all members.
type Spread struct {
	Messages  int     `json:"messages"`
	Size      int     `json:"size"`      // bytes of one, as published
	Delivered float64 `json:"delivered"` // share of all members but the sender, on average
	Copies    float64 `json:"copies"`    // that a member was sent of one message, on average: one is new, the rest are duplicates
	Bytes     float64 `json:"bytes"`     // sent by a peer for one message
	CPU       float64 `json:"cpu_s"`     // seconds of CPU of a peer for one message
	Half      float64 `json:"half_s"`    // until half of the deliveries were there
	Last      float64 `json:"last_s"`    // until 99 in 100 were
}

// Kad is a Kademlia table of so many real hosts in one process on loopback.
type Kad struct {
	Peers int     `json:"peers"`
	Table float64 `json:"table"` // entries of a routing table, on average

	Provide Lookup  `json:"provide"`
	Find    Lookup  `json:"find"`    // of a key that a peer provides, to the end of the lookup
	Found   float64 `json:"found"`   // share of the finds that found the provider
	First   float64 `json:"first_s"` // seconds until the provider was named, on average
}

// Lookup is the cost of one, on average.
type Lookup struct {
	Asked   float64 `json:"asked"`   // peers that were sent a request
	Dialed  float64 `json:"dialed"`  // of these, over a new connection
	Bytes   float64 `json:"bytes"`   // sent and got by whoever asks
	CPU     float64 `json:"cpu_s"`   // of all together
	Seconds float64 `json:"seconds"` // until the end
}

// PutPool puts figures in place of those of the same size, in order of size.
func (m *Measured) PutPool(p Pool) {
	m.Pools = append(slices.DeleteFunc(m.Pools, func(q Pool) bool { return q.Peers == p.Peers }), p)
	slices.SortFunc(m.Pools, func(a, b Pool) int { return a.Peers - b.Peers })
}

// PutTable does the same.
func (m *Measured) PutTable(k Kad) {
	m.Tables = append(slices.DeleteFunc(m.Tables, func(q Kad) bool { return q.Peers == k.Peers }), k)
	slices.SortFunc(m.Tables, func(a, b Kad) int { return a.Peers - b.Peers })
}

// largest is the greatest pool that was measured.
func (m Measured) largest() Pool {
	var out Pool
	for _, p := range m.Pools {
		if p.Peers > out.Peers {
			out = p
		}
	}
	return out
}

// Load reads what an earlier run measured.
func Load(path string) (Measured, error) {
	var m Measured
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err != nil {
		return m, fmt.Errorf("scale: read %s: %w", path, err)
	}
	return m, nil
}

// Save writes it.
func (m Measured) Save(path string) error {
	raw, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = os.WriteFile(path, append(raw, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("scale: write %s: %w", path, err)
	}
	return nil
}
