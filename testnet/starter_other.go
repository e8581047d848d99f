//go:build !linux

package testnet

import "os/exec"

// starter starts processes. Where the kernel ties no process to its parent, one that outlives this program is possible:
// when it is killed before it can take its peers down.
type starter struct{}

func newStarter() starter                 { return starter{} }
func (starter) start(cmd *exec.Cmd) error { return cmd.Start() }
func (starter) close()                    {}
