package cli

import (
	"context"
	"fmt"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

func newEvict(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "evict PEER",
		Short: "End a member's membership for good",
		Long: "Ends the membership of a peer, by its key: its connections are closed, all members refuse\n" +
			"it from then on, also when it comes back, and the pool's secret changes. Only an admin\n" +
			"can. PEER is a name, the beginning of one, or a peer id.",
		Args: argsRange(1, 1, "peer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onMember(cmd.Context(), args[0], yes, "Evict %s for good?", "evicted %s",
				func(ctx context.Context, c *client.Client, id string) (client.Member, error) {
					return c.Evict(ctx, client.MemberRequest{Peer: id})
				})
		},
		ValidArgsFunction: a.completeMembers,
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func newPromote(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "promote PEER",
		Short: "Make a member an admin",
		Long: "Makes a member an admin, who can invite, evict and promote. With a second admin, losing the\n" +
			"first laptop loses nothing. PEER is a name, the beginning of one, or a peer id.",
		Args: argsRange(1, 1, "peer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onMember(cmd.Context(), args[0], yes, "Make %s an admin?", "%s is an admin now",
				func(ctx context.Context, c *client.Client, id string) (client.Member, error) {
					return c.Promote(ctx, client.MemberRequest{Peer: id})
				})
		},
		ValidArgsFunction: a.completeMembers,
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// onMember does something to one member, after asking about the one that the
// text turned out to mean.
func (a *app) onMember(ctx context.Context, text string, yes bool, question, done string,
	do func(context.Context, *client.Client, string) (client.Member, error)) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	name, id := text, text
	if !yes {
		if name, id, err = a.meant(ctx, c, text); err != nil {
			return err
		}
		if yes, err = a.confirm(ctx, fmt.Sprintf(question, name)); err != nil {
			return err
		}
		if !yes {
			return client.Errorf(client.KindRefused, "", "nothing was changed")
		}
	}
	m, err := do(ctx, c, id)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(m)
	}
	a.notef(done, clean(m.Name))
	return nil
}

// meant looks up whom a text means, so that the question can say it. When it
// cannot be told here, the peer will say why.
func (a *app) meant(ctx context.Context, c *client.Client, text string) (name, id string, err error) {
	pool, err := c.Pool(ctx)
	if err != nil {
		return "", "", err
	}
	for _, m := range pool.Members {
		if m.Name == text || m.ID == text {
			return clean(m.Name) + " (" + clean(m.ID) + ")", m.ID, nil
		}
	}
	return clean(text), text, nil
}

// completeMembers offers the members' names to the shell.
func (a *app) completeMembers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || a.resolveHome() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := a.dial(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	pool, err := c.Pool(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, m := range pool.Members {
		out = append(out, clean(m.Name)+"\t"+clean(m.Role)+", "+clean(m.State))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
