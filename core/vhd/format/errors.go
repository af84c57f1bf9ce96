package format

import "errors"

// What is wrong with a structure. Every error of this package wraps one of
// these; match them with errors.Is.
var (
	// ErrCookie: the bytes are not this structure at all.
	ErrCookie = errors.New("wrong cookie")
	// ErrChecksum: the checksum that is stored is not that of the bytes.
	ErrChecksum = errors.New("wrong checksum")
	// ErrVersion: a version of the format that nobody has defined.
	ErrVersion = errors.New("unknown version")
	// ErrField: a value that the field may not have.
	ErrField = errors.New("invalid value")
	// ErrBounds: a length or an offset outside of what can be.
	ErrBounds = errors.New("out of bounds")
	// ErrEncrypted: the image is encrypted (a key hash is set).
	ErrEncrypted = errors.New("encrypted image")
)

// Error is damage found in a structure.
type Error struct {
	Structure string // "footer", "dynamic header", "batmap", "locator"
	Field     string // the field at fault, "block size"; empty where it is the structure
	Err       error  // one of this package's sentinels
	Detail    string // the numbers: "3000 bytes is no power of two"; may be empty
}

// Error is one line, the place first:
// "dynamic header: block size: invalid value: 3000 bytes is no power of two".
func (e *Error) Error() string {
	s := e.Structure
	if e.Field != "" {
		s += ": " + e.Field
	}
	s += ": " + e.Err.Error()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap is the sentinel.
func (e *Error) Unwrap() error { return e.Err }
