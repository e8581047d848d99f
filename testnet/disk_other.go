//go:build !linux

package testnet

import (
	"errors"
	"io"
)

var errNoDisk = errors.New("only Linux gives a peer a disk of its own")

func mountDisk(string) error   { return errNoDisk }
func unmountDisk(string) error { return errNoDisk }
func fillDisk(string) error    { return errNoDisk }
func freeDisk(string) error    { return nil }

type slowDisk struct{}

func startSlow(string, string, string) (*slowDisk, error) { return nil, errNoDisk }
func (*slowDisk) set(bool) error                          { return errNoDisk }
func (*slowDisk) close() error                            { return nil }

// RunDisk is for Linux alone.
func RunDisk(string, string, io.Reader, io.Writer) error { return errNoDisk }
