//go:build !windows

package cli

import "syscall"

// detached gives the child a session of its own, so that neither ctrl-C here
// nor the end of this terminal reaches it.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
