package cli

import (
	"fmt"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the running peer and its pool are doing",
		Args:  argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			pool, err := c.Pool(cmd.Context())
			if err != nil {
				return err
			}
			worker, err := c.Worker(cmd.Context())
			if err != nil {
				return err
			}
			return a.printStatus(s, pool, worker)
		},
	}
}

// statusShape is status as JSON: the peer, and its pool beside it.
type statusShape struct {
	client.Status
	Pool   client.Pool   `json:"pool"`
	Worker client.Worker `json:"worker"`
}

func (a *app) printStatus(s client.Status, pool client.Pool, worker client.Worker) error {
	if a.json {
		return a.printJSON(statusShape{s, pool, worker})
	}
	lan := "on"
	if !s.LAN {
		lan = "off"
	}
	rows := [][]string{
		{"name", clean(s.Name)},
		{"id", s.ID},
		{"home", clean(s.Home)},
		{"api", s.API},
		{"running", fmt.Sprintf("%s, process %d, version %s", durationText(time.Since(s.Started)), s.PID, s.Version)},
	}
	rows = append(rows, column("addresses", s.Addrs, "none")...)
	rows = append(rows,
		[]string{"lan", lan},
		[]string{"dht", plural(s.Table, "peer") + " in the table"},
		[]string{"shares", fmt.Sprintf("%d, %s; %s uploaded", s.Shares, bytesText(s.Shared), bytesText(s.Uploaded))},
		[]string{"fetching", fmt.Sprint(s.Fetching)},
	)
	rows = append(rows, poolRows(pool)...)
	rows = append(rows, []string{"tasks", fmt.Sprintf("%s; steward of %s, leading %d", lendText(worker), plural(worker.Stewards, "job"), worker.Leads)})
	var peers []string
	for _, p := range s.Peers {
		for _, path := range p.Paths {
			peers = append(peers, pathText(p.ID, path))
		}
	}
	rows = append(rows, column("peers", peers, "none connected")...)
	if err := table(a.out, rows); err != nil {
		return err
	}
	a.notePool(pool)
	return nil
}

// poolRows is the pool as one machine.
func poolRows(p client.Pool) [][]string {
	t := p.Totals
	return [][]string{
		{"pool", fmt.Sprintf("%s, %s, %d online", cut(clean(p.ID), 8), plural(p.All.Members, "member"), t.Members)},
		{"cores", fmt.Sprint(t.Cores)},
		{"memory", bytesText(t.Memory)},
		{"space", fmt.Sprintf("%s, %s free", bytesText(t.Space), bytesText(t.Free))},
		{"names", fmt.Sprintf("%d, digest %s", p.Names.Records, clean(p.Names.Digest))},
	}
}

func pathText(id string, p client.Path) string {
	text := fmt.Sprintf("%s  %s  %s", id, p.Transport, p.Scope)
	if p.RTT > 0 {
		text += fmt.Sprintf("  %.1f ms", p.RTT)
	}
	if p.Limited {
		text += "  limited by its relay"
	}
	return text + "  " + clean(p.Remote)
}

// column is a row for each value, the name beside the first.
func column(name string, values []string, none string) [][]string {
	if len(values) == 0 {
		return [][]string{{name, none}}
	}
	var rows [][]string
	for _, v := range values {
		rows = append(rows, []string{name, v})
		name = ""
	}
	return rows
}
