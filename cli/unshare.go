package cli

import (
	"context"
	"path/filepath"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/spf13/cobra"
)

func newUnshare(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "unshare SHARE…",
		Short: "Stop seeding",
		Long: "Stops seeding shares, each named by its root, its link, its path or its name. The\n" +
			"files stay. Peers that fetched them may go on seeding.",
		Args: argsRange(1, -1, "share"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			s, err := a.join(cmd.Context(), a.offline())
			if err != nil {
				return err
			}
			defer closeSession(s, &err)
			for _, arg := range args {
				if err := a.unshare(cmd.Context(), s, arg); err != nil {
					return err
				}
			}
			return nil
		},
		ValidArgsFunction: a.completeShares,
	}
}

func (a *app) unshare(ctx context.Context, s *session, arg string) error {
	shares, err := s.Shares(ctx)
	if err != nil {
		return err
	}
	share, err := pick(shares, arg)
	if err != nil {
		return err
	}
	if err := s.Unshare(ctx, share.Root); err != nil {
		return err
	}
	a.notef("no longer seeding %s (%s)", clean(share.Name), share.Root)
	return nil
}

// pick finds the one share that arg names: a root, a link, a path or a name,
// in this order.
func pick(shares []client.Share, arg string) (client.Share, error) {
	root := ""
	if link, err := chunk.ParseLink(arg); err == nil {
		root = link.Root.String()
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		path = arg
	}
	for _, matches := range []func(client.Share) bool{
		func(s client.Share) bool { return s.Root == root },
		func(s client.Share) bool { return s.Path == path },
		func(s client.Share) bool { return s.Name == arg },
	} {
		var found []client.Share
		for _, s := range shares {
			if matches(s) {
				found = append(found, s)
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return client.Share{}, usagef("name it by its root, as `shoal shares` prints it",
				"%d shares are called %q", len(found), clean(arg))
		}
	}
	return client.Share{}, client.Errorf(client.KindNotFound, "`shoal shares` lists them", "there is no share %q", clean(arg))
}

// completeShares offers the roots of a running peer to the shell.
func (a *app) completeShares(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if a.resolveHome() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := a.dial(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	shares, err := c.Shares(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, s := range shares {
		out = append(out, s.Root+"\t"+clean(s.Name))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
