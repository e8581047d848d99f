package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

type inviteFlags struct {
	role     string
	ttl      time.Duration
	uses     int
	qr, wait bool
	yes      bool
}

func newInvite(a *app) *cobra.Command {
	var f inviteFlags
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Print a ticket that lets another peer join the pool",
		Long: "Prints a ticket as the only line on stdout: whoever has it can join the pool once, until\n" +
			"it runs out. The other side runs `shoal join TICKET`; this peer has to be running then,\n" +
			"and only an admin can invite. With --wait it stays until the ticket is used, shows the\n" +
			"check words that the joiner sees as well, and asks whether to let it in, unless --yes.\n\n" +
			"Roles: a terminal gives commands and lends nothing, a member lends space and cores, an\n" +
			"admin invites and evicts as well.",
		Example: "  shoal invite --wait\n  shoal invite --role terminal --ttl 10m --qr",
		Args:    argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.ttl < 0 || f.uses < 0 {
				return usagef("", "--ttl and --uses cannot be negative")
			}
			return a.invite(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.role, "role", "member", "what the joiner will be: terminal, member or admin")
	cmd.Flags().DurationVar(&f.ttl, "ttl", 24*time.Hour, "for how long the ticket is good")
	cmd.Flags().IntVar(&f.uses, "uses", 1, "how many peers may join with it")
	cmd.Flags().BoolVar(&f.qr, "qr", false, "draw the ticket as a QR code, on stderr")
	cmd.Flags().BoolVar(&f.wait, "wait", false, "stay until the ticket is used up, and show who joins")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "with --wait: let in whoever has the ticket, without asking")
	return cmd
}

func (a *app) invite(ctx context.Context, f inviteFlags) error {
	switch f.role {
	case "terminal", "member", "admin":
	default:
		return usagef("terminal, member or admin", "there is no role %q", clean(f.role))
	}
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if f.wait {
		return a.awaitJoiners(ctx, c, f)
	}
	_, err = a.giveTicket(ctx, c, f)
	return err
}

// giveTicket makes a ticket and prints it.
func (a *app) giveTicket(ctx context.Context, c *client.Client, f inviteFlags) (client.Invitation, error) {
	inv, err := c.Invite(ctx, client.InviteRequest{Role: f.role, TTL: f.ttl.Seconds(), Uses: f.uses})
	if err != nil {
		return inv, err
	}
	return inv, a.printTicket(inv, f.qr)
}

func (a *app) printTicket(inv client.Invitation, qr bool) error {
	if a.json {
		if err := a.printJSON(inv); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintln(a.out, clean(inv.Ticket)); err != nil {
		return err
	}
	a.notef("for %s as %s, until %s; the other side runs `shoal join TICKET`",
		plural(inv.Uses, "peer"), article(clean(inv.Role)), inv.Expires.Local().Format("Mon 15:04"))
	if !qr {
		return nil
	}
	code := qrText(inv.Ticket, a.color)
	if code == "" {
		a.notef("the ticket is too long for a QR code")
		return nil
	}
	_, err := fmt.Fprint(a.err, code)
	return err
}

func article(noun string) string {
	if noun == "admin" {
		return "an admin"
	}
	return "a " + noun
}

// errEnough ends the following of events.
var errEnough = errors.New("enough")

// awaitJoiners gives a ticket, shows who joins, and asks about each, until the
// ticket is used up or runs out. It watches before the ticket is out, so that
// nobody comes unseen.
func (a *app) awaitJoiners(ctx context.Context, c *client.Client, f inviteFlags) error {
	watch, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var inv client.Invitation
	var watchedFrom uint64
	joined := 0
	err := c.PoolEvents(watch, 0, !f.yes, func(e client.PoolEvent) (err error) {
		switch {
		case e.Kind == "watching":
			watchedFrom = e.Seq
			if inv, err = a.giveTicket(watch, c, f); err == nil {
				time.AfterFunc(time.Until(inv.Expires), func() { cancel(errTicketOver) })
			}
			return err
		case e.Seq <= watchedFrom:
			return nil
		case e.Kind == "joining" && e.Token != "":
			return a.askAboutJoiner(watch, c, e)
		case e.Kind == "joined":
			a.notef("%s joined as %s; its check words were: %s", clean(e.Name), article(clean(e.Role)), clean(e.Words))
			if joined++; joined >= inv.Uses {
				return errEnough
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return nil
	case errors.Is(context.Cause(watch), errTicketOver):
		return client.Errorf(client.KindRefused, "`shoal invite` makes another", "nobody came before the ticket ran out")
	}
	return err
}

var errTicketOver = errors.New("the ticket ran out")

// askAboutJoiner shows a joiner's check words and passes the person's answer on.
func (a *app) askAboutJoiner(ctx context.Context, c *client.Client, e client.PoolEvent) error {
	a.notef("%s wants to join as %s. Its screen must show the same words:\n\n    %s\n", clean(e.Name), article(clean(e.Role)), clean(e.Words))
	yes, err := a.confirm(ctx, "Does it? Let it in?")
	if err != nil {
		return err
	}
	err = c.Answer(ctx, client.PoolAnswer{Token: e.Token, Accept: yes})
	if client.KindOf(err) == client.KindNotFound && err != nil {
		a.notef("%s is not waiting any more", clean(e.Name))
		return nil
	}
	return err
}
