package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

// nameShown is how much of a name a column shows.
const nameShown = 24

func newPeers(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "peers",
		Short: "List the members of the pool",
		Long: "Lists the members of the pool as this peer sees them: role, state (online, away, absent),\n" +
			"the connection to each and its round trip, and what each lends.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			pool, err := a.pool(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(pool)
			}
			if err := table(a.out, memberRows(pool, time.Now())); err != nil {
				return err
			}
			a.notePool(pool)
			return nil
		},
	}
}

// pool asks the running peer for its pool.
func (a *app) pool(ctx context.Context) (client.Pool, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return client.Pool{}, err
	}
	defer c.Close()
	return c.Pool(ctx)
}

// memberRows is the table of the members.
func memberRows(pool client.Pool, now time.Time) [][]string {
	rows := [][]string{{"NAME", "ROLE", "STATE", "PATH", "RTT", "CORES", "MEMORY", "FREE", "POWER", "VERSION"}}
	for _, m := range pool.Members {
		path, rtt := memberPath(m)
		rows = append(rows, []string{
			cut(clean(m.Name), nameShown), m.Role, memberState(m, now), path, rtt,
			fmt.Sprint(m.Lends.Cores), bytesText(m.Lends.Memory), bytesText(m.Lends.Free), powerText(m.Lends), clean(m.Lends.Version),
		})
	}
	return rows
}

// memberState is a member's state, and for how long it has been silent.
func memberState(m client.Member, now time.Time) string {
	if m.State == "online" || m.Self || m.Seen.IsZero() {
		return m.State
	}
	return m.State + " " + durationText(now.Sub(m.Seen))
}

// memberPath is how a member is reached, and its round trip.
func memberPath(m client.Member) (path, rtt string) {
	if m.Self {
		return "this peer", "-"
	}
	if len(m.Paths) == 0 {
		return "-", "-"
	}
	p := m.Paths[0]
	path, rtt = p.Transport+" "+p.Scope, "-"
	if p.Limited {
		path += " limited"
	}
	if p.RTT > 0 {
		rtt = fmt.Sprintf("%.1f ms", p.RTT)
	}
	return path, rtt
}

func powerText(l client.Lends) string {
	text := l.Power
	if l.Power == "battery" {
		text = fmt.Sprintf("battery %d%%", l.Battery)
	}
	if l.Power == "unknown" || l.Power == "" {
		text = "-"
	}
	if l.AlwaysOn {
		text += ", anchor"
	}
	return text
}

// notePool says what is wrong with the membership, if anything is.
func (a *app) notePool(pool client.Pool) {
	if pool.Standing != "ok" {
		a.notef("this peer is no member in force: %s", clean(pool.Standing))
	}
	if pool.Problem != "" {
		a.notef("the membership cannot be stored: %s", clean(pool.Problem))
	}
	if pool.Waking && pool.Totals.Members < pool.All.Members {
		a.notef("this machine has just started or woken up: members who seem away may not be")
	}
}
