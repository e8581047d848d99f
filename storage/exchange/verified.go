//go:build !breakverify

package exchange

// unverified is true only in a build with the tag breakverify.
const unverified = false
