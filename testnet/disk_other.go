//go:build !linux

package testnet

import "errors"

var errNoDisk = errors.New("only Linux gives a peer a small disk of its own")

func mountDisk(string) error   { return errNoDisk }
func unmountDisk(string) error { return errNoDisk }
func fillDisk(string) error    { return errNoDisk }
func freeDisk(string) error    { return nil }
