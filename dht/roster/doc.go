// Package roster decides who belongs to a pool and who of them seems to be there.
//
// A member is a peer with a certificate in force: signed by an admin, not run out, not given up by leaving, and its peer
// not evicted. An admin is the pool's first peer, or one that a chain of appointments leads to. What each record says is
// ident's; whether it counts is decided here, from the set of all records that this peer holds and in whatever order they
// came. A member is online while its heartbeats arrive, else away, absent or departed, by how long ago that was.
//
// The package is pure: Step(now, event) changes the roster and says what follows. It has no clock, disk, network or
// goroutine; dht/pool is its shell. DESIGN.md there gives the reasons for the chain of admins.
package roster
