//go:build !linux

package testnet

import "context"

// Inside is for Linux; elsewhere the caller always runs the scenario itself.
func Inside(context.Context) (code int, ok bool, why error) { return 0, false, nil }
