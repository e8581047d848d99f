//go:build breaktoken

package market

// usualGuards breaks a promise on purpose, by committing whatever an attempt hands over, whether its task is still open and its
// token may commit or not: the testnet must see it.
const usualGuards = AllGuards &^ (OpenGuard | TokenGuard)
