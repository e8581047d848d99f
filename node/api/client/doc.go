// Package client is the local API of a peer as Go types: the JSON shapes that
// cross it, a typed client, and the file through which the two find each other.
//
// A *home* is a peer's folder. The peer that runs on it listens on an
// *endpoint* (a Unix socket, or loopback TCP with a token) and writes where
// that is into home/api.json. [Open] reads the file and returns a [Client]
// that speaks HTTP and JSON over it; [ErrNoPeer] means that nobody answers.
//
// The package knows nothing of the network or of storage: what the shapes mean
// is the peer's, what is printed of them the command line's. The OpenAPI
// document of node/api is generated from the types in this package, so a field
// without a doc tag is a field without documentation.
package client
