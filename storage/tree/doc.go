// Package tree owns the pool's name space: paths, the files behind them, their versions and conflicts.
//
// A file version is an immutable record of the directory, and its bytes are pieces that storage holds. Package paths
// decides what all versions together show; this package reads and writes them, puts and gets files, and tells those
// who keep pieces which ones are wanted. Everything can be done offline: what two peers did to one path apart is kept,
// one beside the other.
//
// The package refuses to know which peer holds what, and how bytes get here or to others: it asks its Bytes.
package tree
