package blockdev

import (
	"errors"
	"fmt"
)

// What callers of a Device branch on. Errors of a device wrap one of these
// where it applies; any other error is the device's own and means that the
// operation failed (an I/O error, damage in an image).
var (
	ErrReadOnly   = errors.New("read-only device")
	ErrClosed     = errors.New("device is closed")
	ErrNoSpace    = errors.New("no space left under the device")
	ErrOutOfRange = errors.New("beyond the end of the device")
	ErrWouldBlock = errors.New("the read would wait for the disk")
)

// RangeError is an access that doesn't lie within the device. It unwraps to
// ErrOutOfRange.
type RangeError struct {
	Offset, Length, Size int64 // bytes
}

// Error has the range and the size.
func (e *RangeError) Error() string {
	return fmt.Sprintf("%d bytes at offset %d: %v of %d bytes", e.Length, e.Offset, ErrOutOfRange, e.Size)
}

// Unwrap is ErrOutOfRange.
func (e *RangeError) Unwrap() error { return ErrOutOfRange }
