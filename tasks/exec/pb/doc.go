// Package pb is the generated schema of what a peer and a runner's child say to each other, exec.proto.
package pb
