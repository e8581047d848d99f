// Package gossip carries a pool's announcements: small signed messages that reach every member within moments, by way of
// the members between, on named topics. It owns the one use of libp2p's GossipSub: who takes part, what is checked of each
// message, and every limit.
//
// A topic carries one type of message. What arrives is from the member that signed it, not too large, not a repetition of
// old news, within its sender's allowance, and passed the topic's own decoder; all else is dropped before anyone sees it.
//
// Gossip is for news, never for state: a message may be lost, and a peer that was away gets none of what it missed. The
// package does not know who is a member. It asks its gate, which dht/pool is, and through which its streams run.
package gossip
