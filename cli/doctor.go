package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

func newDoctor(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check this peer and say what is in the way",
		Long:  "Checks the home and, when a peer is running, the peer. Exits with 1 when a check fails.",
		Args:  argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := a.examine(cmd.Context())
			if err != nil {
				return err
			}
			return a.printDoctor(d)
		},
	}
}

// examine asks the running peer; without one it looks at the home from here.
func (a *app) examine(ctx context.Context) (client.Doctor, error) {
	c, err := a.dial(ctx)
	if err == nil {
		defer c.Close()
		return c.Doctor(ctx)
	}
	if a.peer != "" {
		return client.Doctor{}, err
	}
	d := client.Doctor{Checks: node.ExamineHome(a.home)}
	absent := client.Check{Name: "peer", State: client.CheckFail, Text: err.Error()}
	var e *client.Error
	if errors.As(err, &e) {
		absent.Hint = e.Hint
	}
	if errors.Is(err, client.ErrNoPeer) {
		absent.State = client.CheckWarn
	}
	d.Checks = append(d.Checks, absent)
	return d, nil
}

func (a *app) printDoctor(d client.Doctor) error {
	failed := false
	for _, c := range d.Checks {
		failed = failed || c.State == client.CheckFail
	}
	if a.json {
		if err := a.printJSON(d); err != nil {
			return err
		}
	} else {
		for _, c := range d.Checks {
			fmt.Fprintf(a.out, "%s  %-11s %s\n", a.stateText(c.State), clean(c.Name), clean(c.Text))
			if c.Hint != "" {
				fmt.Fprintf(a.out, "      %-11s %s\n", "", a.paint(dim, "→ "+clean(c.Hint)))
			}
		}
	}
	if failed {
		return silent{exitFailure}
	}
	return nil
}

func (a *app) stateText(s client.CheckState) string {
	switch s {
	case client.CheckOK:
		return a.paint(green, "ok  ")
	case client.CheckWarn:
		return a.paint(yellow, "warn")
	default:
		return a.paint(red, "FAIL")
	}
}
