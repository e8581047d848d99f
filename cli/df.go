package cli

import (
	"fmt"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

func newDf(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "df",
		Short: "Show the space that the pool has",
		Long:  "Shows what disk each member lends, what of it is used and free, and the total.",
		Args:  argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			pool, err := a.pool(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(spaceShape(pool))
			}
			return table(a.out, spaceRows(pool, time.Now()))
		},
	}
}

// space is df's listing as JSON.
type space struct {
	Members []memberSpace `json:"members"`
	Online  client.Totals `json:"online"`
	All     client.Totals `json:"all"`
}

type memberSpace struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	State string `json:"state"`
	Space int64  `json:"space"`
	Used  int64  `json:"used"`
	Free  int64  `json:"free"`
}

func spaceShape(pool client.Pool) space {
	out := space{Members: []memberSpace{}, Online: pool.Totals, All: pool.All}
	for _, m := range pool.Members {
		out.Members = append(out.Members, memberSpace{
			ID: m.ID, Name: m.Name, State: m.State, Space: m.Lends.Space, Used: m.Lends.Space - m.Lends.Free, Free: m.Lends.Free,
		})
	}
	return out
}

func spaceRows(pool client.Pool, now time.Time) [][]string {
	rows := [][]string{{"MEMBER", "STATE", "SPACE", "USED", "FREE", "USE"}}
	add := func(name, state string, space, free int64) {
		rows = append(rows, []string{name, state, bytesText(space), bytesText(space - free), bytesText(free), percent(space-free, space)})
	}
	for _, m := range pool.Members {
		add(cut(clean(m.Name), nameShown), memberState(m, now), m.Lends.Space, m.Lends.Free)
	}
	add("online", fmt.Sprint(pool.Totals.Members), pool.Totals.Space, pool.Totals.Free)
	if pool.All.Members != pool.Totals.Members {
		add("all", fmt.Sprint(pool.All.Members), pool.All.Space, pool.All.Free)
	}
	return rows
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", part*100/whole)
}
