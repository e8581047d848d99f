//go:build breakfsync

package pack

// syncForgotten breaks a promise on purpose: the testnet must see it.
const syncForgotten = true
