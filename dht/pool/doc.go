// Package pool makes a peer a member of its pool: it lets others join, proves who belongs, keeps in touch with the other
// members, and stands before every protocol that is for members only.
//
// A pool is a set of peers that trust each other. An invitation is a ticket with a one-time secret; joining proves the
// secret in both directions without sending it, and ends with a certificate signed by an admin. The gate checks each
// stream of a pool protocol by the authenticated peer id of its other end, before the protocol's first byte: Handle and
// HandleFor are the only ways to register one, and Protocols lists them all. A link is a stream on which one member tells
// another every two seconds that it is there, what it lends, and what news there is of the membership.
//
// What the certificates, evictions and heartbeats mean is decided by dht/roster, of which this package is the shell. It
// stores one small file, and does not know what the pool is used for. DESIGN.md has the reasons.
package pool
