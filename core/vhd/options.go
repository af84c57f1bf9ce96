package vhd

import (
	"fmt"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// Durability says when a write is safe from a power cut.
type Durability int

const (
	// Writeback: after the next Flush. What a disk with a write cache does.
	Writeback Durability = iota
	// Writethrough: before WriteAt returns.
	Writethrough
	// Unsafe: after Close, never before; for building images that can be
	// built again.
	Unsafe
)

var durabilities = [...]string{"writeback", "writethrough", "unsafe"}

// ParseDurability reads a mode's name; an unknown one is an error that lists
// those there are.
func ParseDurability(s string) (Durability, error) {
	for i, name := range durabilities {
		if s == name {
			return Durability(i), nil
		}
	}
	return 0, fmt.Errorf("durability %q is not one of writeback, writethrough, unsafe", s)
}

// String is the mode's name, as ParseDurability reads it.
func (d Durability) String() string { return durabilities[d] }

// Options say how an image is opened. The zero value is right for most.
type Options struct {
	// FS is where names lead; nil is storage.OS.
	FS storage.FS
	// ReadOnly opens without the right to write, and shares the image with
	// other readers. What is damaged but readable still opens.
	ReadOnly bool
	// NoLock opens beside a writer: for looking at an image in use. What is
	// read may be torn. It demands ReadOnly.
	NoLock bool
	// Parent is the path of the image's parent, in place of what the image
	// says. Symbolic links in it are followed.
	Parent string
	// ParentDirs are directories in whose trees a parent may lie, beside the
	// tree of its child's own directory.
	ParentDirs []string
	// ForceParent accepts a parent whose UUID is not the one that the child
	// names.
	ForceParent bool
	// SizeFrom overrides the rule by which the disk's size is found.
	SizeFrom format.SizeFrom
	// Durability is when writes become safe.
	Durability Durability
}

// Kind is what an image of a chain is.
type Kind int

const (
	KindFixed        Kind = iota // every byte at its offset, and a footer
	KindDynamic                  // blocks allocated on demand, no parent
	KindDifferencing             // blocks over a parent
	KindRaw                      // no VHD: every byte at its offset
)

var kinds = [...]string{"fixed", "dynamic", "differencing", "raw"}

// String is the kind's word in messages.
func (k Kind) String() string { return kinds[k] }

// FooterSource is where the footer in use was found.
type FooterSource int

const (
	FromEnd      FooterSource = iota // the last 512 bytes
	FromShortEnd                     // the last 511 bytes, as old Virtual PC wrote it
	FromCopy                         // the copy at the start: the end has none that is good
)

var footerSources = [...]string{"end", "end, 511 bytes", "copy at the start"}

// String says the place in words.
func (s FooterSource) String() string { return footerSources[s] }

// Layer describes one image of a chain, as read at open.
type Layer struct {
	Name          string         // as opened
	ID            storage.FileID // of the file, whatever its name
	Kind          Kind
	Size          int64          // bytes of the disk it shows
	FileSize      int64          // bytes
	FileAllocated int64          // bytes that the file system keeps for it
	Footer        *format.Footer // nil for raw
	FooterAt      FooterSource
	Header        *format.Header // nil for fixed and raw
	Batmap        bool           // it has a batmap whose checksum is right
	Blocks        int64          // dynamic and differencing: blocks of the disk
	Allocated     int64          // … of these, how many are in the file
	Parent        string         // path of the parent; empty if none
}
