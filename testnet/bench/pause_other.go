//go:build !unix

package main

import (
	"errors"
	"os"
)

func suspend(*os.Process) error   { return errors.New("a process cannot be stopped on this system") }
func unsuspend(*os.Process) error { return nil }
