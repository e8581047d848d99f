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
		Short: "Show the space that the pool has, and how safe what is on it is",
		Long: "Shows what disk each member lends, what of it pool files take, and what is free; then how\n" +
			"safe these files are: safe: as many copies as wanted; short: fewer, and more are made once\n" +
			"it is clear that the machines with them stay away; single: one copy only; asleep: only on\n" +
			"machines that are not there now; lost. Beside it stands how many machines, whichever they\n" +
			"are, may go for good before anything of it is lost.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error { return a.df(cmd, c) })
		},
	}
}

func (a *app) df(cmd *cobra.Command, c *client.Client) error {
	pool, err := c.Pool(cmd.Context())
	if err != nil {
		return err
	}
	files, err := c.FileSpace(cmd.Context())
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(spaceShape(pool, files))
	}
	if err := table(a.out, spaceRows(pool, files, time.Now())); err != nil {
		return err
	}
	return a.printSafety(files)
}

// printSafety says how safe the pool's files are.
func (a *app) printSafety(files client.Space) error {
	if files.Files == 0 {
		return nil
	}
	fmt.Fprintf(a.out, "\n%s, %s, by how safe they are:\n", plural(files.Files, "file"), bytesText(files.Size))
	rows := [][]string{}
	for _, c := range files.Classes {
		if c.Pieces > 0 {
			rows = append(rows, []string{"  " + c.State, bytesText(c.Bytes), plural(c.Pieces, "piece"), survivesText(c)})
		}
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	if files.Thin > 0 {
		fmt.Fprintf(a.out, "%s of this can be read from one machine only; the others with copies are away\n", bytesText(files.Thin))
	}
	r := files.Repair
	if r.Paused != "" {
		a.notef("no copies are made now: %s", clean(r.Paused))
	}
	if r.Fetching > 0 || r.Waiting > 0 {
		a.notef("copying %s now; %s short of copies, waiting for machines that may come back", plural(r.Fetching, "piece"), plural(r.Waiting, "piece"))
	}
	return nil
}

// survivesText says how many machines may go for good without a loss.
func survivesText(c client.SafetyClass) string {
	switch {
	case c.State == "lost":
		return ""
	case c.Survives == 0:
		return "survives no departure"
	}
	return "survives any " + plural(c.Survives, "departure")
}

// space is df's listing as JSON.
type space struct {
	Members []memberSpace `json:"members"`
	Online  client.Totals `json:"online"`
	All     client.Totals `json:"all"`
	Files   client.Space  `json:"files"`
}

type memberSpace struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	State string `json:"state"`
	Space int64  `json:"space"`
	Held  int64  `json:"held"`
	Used  int64  `json:"used"`
	Free  int64  `json:"free"`
}

func spaceShape(pool client.Pool, files client.Space) space {
	held := heldBy(files)
	out := space{Members: []memberSpace{}, Online: pool.Totals, All: pool.All, Files: files}
	for _, m := range pool.Members {
		out.Members = append(out.Members, memberSpace{
			ID: m.ID, Name: m.Name, State: m.State, Held: held[m.ID], Space: m.Lends.Space, Used: m.Lends.Space - m.Lends.Free, Free: m.Lends.Free,
		})
	}
	return out
}

// heldBy is what each member holds of pool files, by id.
func heldBy(files client.Space) map[string]int64 {
	held := map[string]int64{}
	for _, m := range files.Members {
		held[m.ID] = m.Held
	}
	return held
}

func spaceRows(pool client.Pool, files client.Space, now time.Time) [][]string {
	held, online, all := heldBy(files), int64(0), int64(0)
	rows := [][]string{{"MEMBER", "STATE", "SPACE", "FILES", "FREE", "USE"}}
	add := func(name, state string, space, held, free int64) {
		rows = append(rows, []string{name, state, bytesText(space), bytesText(held), bytesText(free), percent(space-free, space)})
	}
	for _, m := range pool.Members {
		add(cut(clean(m.Name), nameShown), memberState(m, now), m.Lends.Space, held[m.ID], m.Lends.Free)
		all += held[m.ID]
		if m.State == "online" || m.Self {
			online += held[m.ID]
		}
	}
	add("online", fmt.Sprint(pool.Totals.Members), pool.Totals.Space, online, pool.Totals.Free)
	if pool.All.Members != pool.Totals.Members {
		add("all", fmt.Sprint(pool.All.Members), pool.All.Space, all, pool.All.Free)
	}
	return rows
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", part*100/whole)
}
