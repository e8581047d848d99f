// Package paths owns the pure half of the pool's name space: what becomes of the versions of all paths, whoever wrote
// them and in whatever order they are met.
//
// A *version* says that a path is a file with certain bytes, a folder, or removed; and which versions it *replaces*. A
// version that none replaces is a *head*. A path shows its latest live head; another one that says something else is a
// *conflict* and stands beside it under a name of its own, so every live head can be reached by some path. The tree is a
// function of the set of versions alone.
//
// The package also counts, from the same versions, which pieces the pool must hold and in how many copies. It refuses
// to know a disk, a network or the time: all of its time comes as arguments. Reading a Tree is safe for concurrent use
// as long as nobody changes it.
package paths
