// Package vhdtest proves what package vhd promises of a crash. Explore runs
// programs of operations on a disk in memory, cuts the power at every call of
// the storage, and looks at the images that may be left: each is opened as it
// is, held against a model, and its structure is judged by package check.
//
//	for _, k := range vhdtest.Kinds() {
//		report, err := vhdtest.Explore(k, vhdtest.Options{States: 10_000})
//		…
//	}
//
// # The rules
//
// Whatever subset of the unsynced sectors was kept:
//
//  1. the image opens, for writing and for reading alone, and check finds
//     nothing worse than space that belongs to no block;
//  2. what was acknowledged before the last completed flush reads back;
//  3. a sector written since reads as its content at that flush or as one
//     written since;
//  4. a sector never written is never changed;
//  5. others would open it too: a valid footer in one of its two places, no
//     overlap, and qemu, which reads a disk without a parent by the BAT alone,
//     finds nothing but what rules 2 to 4 allow either.
//
// # What is one state
//
// States are told apart by a hash of 64 bits of the bytes of all images that may
// be the disk. Of four million states of a kind two share a hash once in two
// million runs: then one of them is not looked at, and not counted. What a
// state shows is found out once, and held against the model of every program
// that may leave it.
//
// # What joins
//
// An operation that changes an image joins by one entry in Operations: what it
// does, and what it may make of a sector. A sort of image joins by one entry
// in Kinds.
//
// # Who judges
//
// The model (model.go) is a list of what was put in each half of a sector and
// of what was flushed when; it knows nothing of blocks. The structure is
// check's business, which shares no code with the engine but the records of
// package format; what qemu would read is found out in qemu.go.
package vhdtest
