//go:build unix

package testnet

import (
	"os"
	"syscall"
)

func suspend(p *os.Process) error   { return p.Signal(syscall.SIGSTOP) }
func unsuspend(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
func stop(p *os.Process) error      { return p.Signal(syscall.SIGTERM) }
