package cli

import (
	"github.com/spf13/cobra"
)

// remoteKey marks the commands that --peer can send to another member.
const remoteKey = "remote"

// remote marks a command as one that another member's API can answer. Commands
// that read or write paths of a machine, or that are the peer, are none.
func remote(cmd *cobra.Command) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[remoteKey] = "yes"
	return cmd
}

// checkPeer refuses --peer for commands that only the local peer can do. As a
// standing setting it is ignored there.
func (a *app) checkPeer(cmd *cobra.Command) error {
	if a.peer == "" || cmd.Annotations[remoteKey] != "" {
		return nil
	}
	if a.given["peer"] {
		return usagef("run it on that machine; status, peers, df, top, shares, doctor and more take --peer",
			"`shoal %s` cannot be sent to another member", cmd.Name())
	}
	a.peer = ""
	return nil
}
