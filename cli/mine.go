package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newMine(a *app) *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use:   "mine",
		Short: "Take this machine back from the pool's tasks at once",
		Long: "Takes this machine back: tasks that run here are frozen at once, given back, and go on\n" +
			"elsewhere. It lends no cores until `shoal mine --off` or until the peer is started anew.\n" +
			"What the pool stores here stays.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				w, err := c.Mine(cmd.Context(), !off)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(w)
				}
				a.notef("%s", lendText(w))
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&off, "off", false, "lend it again")
	own(cmd.Flags())
	return cmd
}

// lendText says what a machine lends to tasks.
func lendText(w client.Worker) string {
	if w.Cores == 0 {
		text := "lends no cores now"
		if w.Why != "" {
			text += ": " + clean(w.Why)
		}
		return text
	}
	text := fmt.Sprintf("lends %s and %s", plural(w.Cores, "core"), bytesText(w.Memory))
	if w.When != "always" {
		text += map[string]string{"mains": ", on mains only", "idle": ", while nobody uses it"}[w.When]
	}
	if w.AllowExec {
		text += ", native commands too"
	}
	if w.Running > 0 {
		text += fmt.Sprintf("; %s running", plural(w.Running, "task"))
	}
	return strings.TrimSpace(text)
}
