package tapctl

import (
	"bytes"
	"fmt"
)

// Layout is the arrangement of Params within a message. Two are in the field,
// in messages of the same size.
type Layout uint8

const (
	// Layout2020s is that of blktap 3 and later, which XenServer and XCP-ng
	// have.
	Layout2020s Layout = iota
	// Layout2010s is that of the blktap-utils of distributions: a byte more
	// after the flags, for the kind of storage, and no request timeout.
	Layout2010s
)

// String is the layout's word on the command line.
func (l Layout) String() string {
	if l == Layout2010s {
		return "2010s"
	}
	return "2020s"
}

// Flags say how an image is opened.
type Flags uint32

// The flags of an open; those that unpause knows are FlagAddLog and
// FlagSecondary.
const (
	FlagShared      Flags = 1 << iota // others may have the image open for writing
	FlagReadOnly                      // the disk is read-only
	FlagAddCache                      // a block cache above the image
	FlagVHDIndex                      // a chain's index instead of its parents
	FlagAddLog                        // a log of dirty blocks; LogPathSize bytes with its path follow the message
	FlagAddLCache                     // a cache of the parent in local storage
	FlagReuseParent                   // the parent is the image that another disk has open
	FlagSecondary                     // Params.Secondary counts
	FlagStandby                       // the secondary takes over only once the first has no space
	FlagNoODirect                     // the host's page cache is used
	FlagEncrypted                     // a byte n, and n bytes with a key, follow the message (and the log's path)
)

// LogPathSize is the number of bytes behind a message with FlagAddLog: the
// path, then zeros.
const LogPathSize = pathSize

// pathSize is the length of the fields for paths and texts.
const pathSize = 256

// paramsOffsets are where the fields of Params stand in the union.
type paramsOffsets struct{ storage, devnum, domid, path, parentDevnum, timeout, secondary int }

const flagsAt = 0 // in both layouts

// absent stands for a field that a layout doesn't have.
const absent = -1

var (
	newerParams = paramsOffsets{storage: absent, devnum: 4, domid: 8, path: 12, parentDevnum: 268, timeout: 272, secondary: 274}
	olderParams = paramsOffsets{storage: 4, devnum: 8, domid: 12, path: 16, parentDevnum: 272, timeout: absent, secondary: 276}
)

func (l Layout) offsets() paramsOffsets {
	if l == Layout2010s {
		return olderParams
	}
	return newerParams
}

// Params is what an image is opened with, by TypeOpen and TypeResume.
type Params struct {
	Layout       Layout
	Flags        Flags
	Storage      uint8  // Layout2010s alone; no tapdisk reads it
	Devnum       uint32 // the minor, once more
	DomID        uint32
	Path         string // "vhd:/path", at most PathMax bytes; empty at an unpause: as before
	ParentDevnum uint32 // the disk whose image FlagReuseParent means
	Timeout      uint16 // of a request, in seconds; 0 is none; Layout2020s alone
	Secondary    string // another such path
}

// SetParams makes p the message's record. A path longer than [PathMax] bytes
// is [ErrTooLong], and leaves the message as it was.
func (m *Message) SetParams(p Params) error {
	var u [unionSize]byte
	at := p.Layout.offsets()
	put32(&u, flagsAt, uint32(p.Flags))
	put32(&u, at.devnum, p.Devnum)
	put32(&u, at.domid, p.DomID)
	put32(&u, at.parentDevnum, p.ParentDevnum)
	if at.storage != absent {
		u[at.storage] = p.Storage
	}
	if at.timeout != absent {
		put16(&u, at.timeout, p.Timeout)
	}
	if err := putText(&u, at.path, p.Path); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	if err := putText(&u, at.secondary, p.Secondary); err != nil {
		return fmt.Errorf("secondary path: %w", err)
	}
	m.union = u
	return nil
}

// Params reads the record of TypeOpen or TypeResume, in either layout. A path
// without an end within its field is [ErrNotTerminated].
func (m *Message) Params() (Params, error) {
	p := Params{Layout: layoutOf(&m.union), Flags: Flags(get32(&m.union, flagsAt))}
	at := p.Layout.offsets()
	p.Devnum = get32(&m.union, at.devnum)
	p.DomID = get32(&m.union, at.domid)
	p.ParentDevnum = get32(&m.union, at.parentDevnum)
	if at.storage != absent {
		p.Storage = m.union[at.storage]
	}
	if at.timeout != absent {
		p.Timeout = get16(&m.union, at.timeout)
	}
	var err error
	if p.Path, err = text(&m.union, at.path); err != nil {
		return Params{}, fmt.Errorf("path: %w", err)
	}
	if p.Secondary, err = text(&m.union, at.secondary); err != nil {
		return Params{}, fmt.Errorf("secondary path: %w", err)
	}
	return p, nil
}

// layoutOf tells the layouts apart by where the path begins. In the older
// layout a domain's number, below 32768, stands where the newer has the path's
// first four bytes: two zeros at least are among them, so that no driver's name
// and colon can begin there. Without any path either layout will do, unless a
// secondary is there.
func layoutOf(u *[unionSize]byte) Layout {
	older, newer := olderParams, newerParams
	switch {
	case startsWithType(u[newer.path : newer.path+pathSize]):
		return Layout2020s
	case startsWithType(u[older.path : older.path+pathSize]):
		return Layout2010s
	case !printable(rune(u[newer.path])) && u[older.path] != 0: // a path without a driver, which an open refuses
		return Layout2010s
	case u[newer.path] == 0 && u[newer.secondary] == 0 && u[older.secondary] != 0:
		return Layout2010s
	}
	return Layout2020s
}

// startsWithType reports whether a field begins with a driver's name and a
// colon, "vhd:".
func startsWithType(field []byte) bool {
	name, _, found := bytes.Cut(field, []byte{':'})
	return found && len(name) > 0 && !bytes.ContainsFunc(name, func(r rune) bool { return !printable(r) || r == '/' })
}

// printable reports whether r is an ASCII character that shows.
func printable(r rune) bool { return r > ' ' && r < 0x7f }
