// Package vhd is the engine: a VHD image and its chain of parents as one
// blockdev.Device, read and written in place.
//
//	img, err := vhd.Open("disk.vhd", vhd.Options{})
//	if err != nil { … }
//	defer img.Close()
//	img.WriteAt(sector, 0)
//	img.Flush() // on stable storage now
//
// What is here: open, read, write, flush, create and snapshot. Tools that work
// on whole images are packages beside it (check). The records themselves are
// package format's: no offset within one is known here. Files are
// storage.Files, so that tests can lose power under them.
//
// # What a crash leaves
//
// Whatever subset of the unsynced sectors survives, the image opens; what a
// completed Flush covered reads back; every sector written since reads as its
// content at that Flush or as one written since. commit.go says how, alloc.go
// why new space may be used before its BAT entry is stable.
//
// # Who owns what
//
// An Image owns its files and locks until Close. Image.gate is held shared by
// each operation and whole by those that recycle space or close; a stripe
// (write.go) orders the writers of a block. The allocator's and the caches'
// locks are leaves, never held across I/O; committer.mu, growMu and syncMu are
// there to serialise it. The order: committer.mu, gate, stripe, growMu, syncMu,
// leaves.
package vhd
