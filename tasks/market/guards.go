//go:build !breaktoken

package market

// usualGuards are the guards of every ledger and steward; only a build with the tag breaktoken has fewer.
const usualGuards = AllGuards
