package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newScrub(a *app) *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use:   "scrub --now",
		Short: "Read everything that this peer keeps again, and mend it",
		Long: "A peer reads what it keeps of the pool's files again about once a month, compares it with its\n" +
			"names and fetches what is damaged from others. With --now it does so at once, and says\n" +
			"what it found. It ends with exit code 7 when something is lost.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !now {
				return usagef("`shoal scrub --now`", "it is done in the background anyway; --now does it at once")
			}
			return a.withPeer(cmd.Context(), func(c *client.Client) error { return a.scrub(cmd, c) })
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "do it now")
	return cmd
}

func (a *app) scrub(cmd *cobra.Command, c *client.Client) error {
	v := a.newView("scrub")
	r, err := c.FileScrub(cmd.Context(), v.update)
	v.end()
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(r)
	} else {
		_, err = fmt.Fprintf(a.out, "read %s (%s) in %.1fs: %d damaged, %d repaired, %d missing, %d orphans\n",
			plural(r.Pieces, "piece"), bytesText(r.Bytes), r.Elapsed, r.Damaged, r.Repaired, r.Missing, r.Orphans)
	}
	if err == nil && (r.Missing > 0 || r.Damaged > r.Repaired) {
		return silent{exitCorrupt}
	}
	return err
}

func newGC(a *app) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Free the space of pool files that nothing names any more",
		Long: "Puts aside what this peer keeps and no file, version or pin names, as it does every hour by\n" +
			"itself; a day later it is deleted. With --purge what was put aside is deleted at once.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				r, err := c.FileCollect(cmd.Context(), purge)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(r)
				}
				_, err = fmt.Fprintf(a.out, "%s put aside, %d deleted, %s free again\n", plural(r.Quarantined, "piece"), r.Purged, bytesText(r.Freed))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "delete what was put aside, without waiting for its day to end")
	return cmd
}

func newWhatIf(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "what-if", Short: "Tell what a change of the pool would mean", Args: argsRange(0, 0, "")}
	cmd.RunE = func(*cobra.Command, []string) error { return usagef("`shoal what-if remove PEER`", "what if what?") }
	cmd.AddCommand(&cobra.Command{
		Use:   "remove PEER",
		Short: "Tell what would be lost or moved if a member went for good",
		Long: "Tells what the pool's files would lose, and what the others would have to copy, if a member\n" +
			"went for good, as after `shoal evict`. Nothing is changed. PEER is a name, the beginning of\n" +
			"one, or a peer id.",
		Args: argsRange(1, 1, "peer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				w, err := c.FileWhatIf(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.printWhatIf(w)
			})
		},
		ValidArgsFunction: a.completeMembers,
	})
	return cmd
}

func (a *app) printWhatIf(w client.WhatIf) error {
	if a.json {
		return a.printJSON(w)
	}
	fmt.Fprintf(a.out, "%s holds %s\n", clean(w.Peer), bytesText(w.Held))
	fmt.Fprintf(a.out, "%s would be copied again\n", bytesText(w.Moved))
	if !w.Room {
		fmt.Fprintln(a.out, "the other members do not have the space for that")
	}
	if w.Asleep > 0 {
		fmt.Fprintf(a.out, "%s would be only on machines that are away now\n", bytesText(w.Asleep))
	}
	if w.Losses == 0 {
		_, err := fmt.Fprintln(a.out, "nothing would be lost")
		return err
	}
	fmt.Fprintf(a.out, "%s would be lost:\n", plural(w.Losses, "path"))
	for _, p := range w.Lost {
		fmt.Fprintln(a.out, clean(p))
	}
	if w.Losses > len(w.Lost) {
		fmt.Fprintf(a.out, "and %d more\n", w.Losses-len(w.Lost))
	}
	return nil
}
