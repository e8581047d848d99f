package cli

import (
	"fmt"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

func newShares(a *app) *cobra.Command {
	var links bool
	cmd := &cobra.Command{
		Use:   "shares",
		Short: "List what this peer seeds",
		Long: "Lists what this peer seeds: shared files and folders, and those fetched. Without a\n" +
			"running peer it lists what the next one will seed. With --links it prints links only.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			s, err := a.join(cmd.Context(), a.offline())
			if err != nil {
				return err
			}
			defer closeSession(s, &err)
			shares, err := s.Shares(cmd.Context())
			if err != nil {
				return err
			}
			return a.printShares(shares, links)
		},
	}
	cmd.Flags().BoolVar(&links, "links", false, "print links only, one a line")
	return cmd
}

// stateText is a share's state, and how far a partial one has come.
func stateText(s client.Share) string {
	if s.State == "partial" && s.Chunks > 0 {
		return fmt.Sprintf("partial %d%%", s.Have*100/s.Chunks)
	}
	return s.State
}

func (a *app) printShares(shares []client.Share, links bool) error {
	if a.json {
		return a.printJSON(client.ShareList{Shares: shares})
	}
	if links {
		for _, s := range shares {
			if _, err := fmt.Fprintln(a.out, clean(s.Link)); err != nil {
				return err
			}
		}
		return nil
	}
	if len(shares) == 0 {
		a.notef("nothing is shared; `shoal share PATH` shares something")
		return nil
	}
	rows := [][]string{{"STATE", "NAME", "SIZE", "FILES", "UPLOADED", "PEERS", "ROOT"}}
	for _, s := range shares {
		rows = append(rows, []string{
			stateText(s), cut(clean(s.Name), 40), bytesText(s.Size), fmt.Sprint(s.Files), bytesText(s.Uploaded), fmt.Sprint(s.Peers), s.Root,
		})
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	for _, s := range shares {
		if s.Problem != "" {
			a.notef("%s: %s", clean(s.Name), clean(s.Problem))
		}
	}
	return nil
}
