package cli

import (
	"context"
	"errors"
	"io"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

func newJoin(a *app) *cobra.Command {
	var req client.JoinRequest
	cmd := &cobra.Command{
		Use:   "join [TICKET]",
		Short: "Join the pool that a ticket is for",
		Long: "Makes this peer a member of the pool whose member printed the ticket with `shoal invite`.\n" +
			"Without a ticket, or with -, it is read from stdin, which keeps it out of the list of\n" +
			"processes. It shows check words, which the inviter sees as well, and asks whether to go\n" +
			"on. A peer is in one pool: a pool of its own with other members or files in it is left\n" +
			"only with --take-theirs.",
		Args: argsRange(0, 1, "ticket"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] != "-" {
				req.Ticket = args[0]
			} else if err := a.readTicket(cmd.Context(), &req); err != nil {
				return err
			}
			return a.joinPool(cmd.Context(), req)
		},
	}
	cmd.Flags().BoolVar(&req.Yes, "yes", false, "join without asking whether the check words are the same")
	cmd.Flags().BoolVar(&req.TakeTheirs, "take-theirs", false, "leave this peer's own pool although it has other members or files")
	return cmd
}

// readTicket reads a ticket from stdin.
func (a *app) readTicket(ctx context.Context, req *client.JoinRequest) error {
	if a.terminal {
		a.notef("paste the ticket:")
	}
	line, err := a.readLine(ctx)
	if errors.Is(err, io.EOF) {
		return usagef("usage: shoal join TICKET", "the ticket is missing")
	}
	req.Ticket = line
	return err
}

func (a *app) joinPool(ctx context.Context, req client.JoinRequest) error {
	if req.Ticket == "" {
		return usagef("usage: shoal join TICKET", "the ticket is missing")
	}
	if len(req.Ticket) > ticketTextMax {
		return usagef("`shoal invite` on a member prints a ticket", "the text is too long for a ticket")
	}
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	pool, err := c.Join(ctx, req, func(q client.JoinQuestion) (bool, error) {
		a.notef("check words:\n\n    %s\n", clean(q.Words))
		if q.Token == "" {
			return true, nil
		}
		a.notef("The inviter sees the same words, with `shoal invite --wait` before this peer is let in.")
		return a.confirm(ctx, "Join the pool as "+article(clean(q.Role))+"?")
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(pool)
	}
	a.notef("joined: the pool has %s; `shoal peers` lists them", plural(len(pool.Members), "member"))
	return nil
}

// ticketTextMax bounds what is sent to the peer as a ticket, in bytes; white
// space that a chat program put into it included.
const ticketTextMax = 4 << 10

func newLeave(a *app) *cobra.Command {
	var yes, force bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Leave the pool",
		Long: "Ends this peer's own membership and tells the other members. The peer runs on, in a new\n" +
			"pool of its own. Coming back takes a new invitation.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.leave(cmd.Context(), yes, force)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "leave even when the pool then has no admin")
	return cmd
}

func (a *app) leave(ctx context.Context, yes, force bool) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	pool, err := c.Pool(ctx)
	if err != nil {
		return err
	}
	if !yes {
		yes, err = a.confirm(ctx, "Leave the pool of "+plural(len(pool.Members), "member")+"? What only its names say is forgotten here.")
		if err != nil {
			return err
		}
		if !yes {
			return client.Errorf(client.KindRefused, "", "nothing was changed")
		}
	}
	fresh, err := c.Leave(ctx, client.LeaveRequest{Force: force})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(fresh)
	}
	a.notef("left the pool; this peer is in a new one of its own")
	return nil
}
