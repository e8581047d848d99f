//go:build breakverify

package exchange

// unverified breaks a promise on purpose, by taking whatever a peer sends: the testnet must see it.
const unverified = true
