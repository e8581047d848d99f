// Package chunk owns the names of bytes: content identifiers (CIDs), links, and
// the one way in which files and folders become blocks and blocks become files
// and folders again.
//
// A chunk is a leaf block of a file, at most 1 MiB of its bytes. A node is a
// block that is not a leaf: it links chunks and other nodes. A root is the CID of
// a file or folder. A tree is what a root expands to: entries (files, folders,
// symbolic links) and leaves.
//
// The profile is unixfs-v1-2025 of IPIP-499: CIDv1, sha2-256, raw leaves of 1 MiB,
// balanced files of 1,024 links a node, folders sharded with a fan-out of 256 once
// their block would pass 256 KiB. The same file has the same CID here and in other
// tools that use the profile.
//
// The package is pure: it opens no file and no connection, starts no goroutine and
// reads no clock. It does not store, fetch or chunk bytes; it only says what their
// names are and whether blocks that somebody sent are an acceptable tree. All that
// it decodes may come from a stranger: decoders are strict, bounded and fuzzed.
package chunk
