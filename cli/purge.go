package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newPurge(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "purge [/PATH]",
		Short: "Delete removed and replaced pool files for good",
		Long: "Deletes what was removed and replaced at and under a path, / if none is given, and could have\n" +
			"been restored for 30 days. What is there now stays. The space comes free on each member a\n" +
			"day after it hears of it, and on this one at once with `shoal gc --purge`.",
		Args: argsRange(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			at := "/"
			if len(args) > 0 {
				at = args[0]
			}
			if err := poolPath(at); err != nil {
				return err
			}
			if !yes {
				ok, err := a.confirm(cmd.Context(), fmt.Sprintf("Delete all that was removed or replaced under %s for good?", clean(at)))
				if err != nil || !ok {
					return orRefused(err)
				}
			}
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				out, err := c.FilePurge(cmd.Context(), client.FileRequest{Path: at})
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(out)
				}
				a.notef("%s deleted", plural(out.Changed, "version"))
				return nil
			})
		},
		ValidArgsFunction: a.completePoolPaths,
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// orRefused is the error of a question that was answered with no.
func orRefused(err error) error {
	if err != nil {
		return err
	}
	return client.Errorf(client.KindRefused, "", "nothing was deleted")
}
