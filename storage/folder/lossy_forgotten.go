//go:build breakfsync

package folder

// syncForgotten breaks a promise on purpose: the testnet must see it.
const syncForgotten = true
