package vhd

import (
	"errors"
	"fmt"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
)

// What a caller can branch on, beside the sentinels of packages storage,
// blockdev, format and io/fs, which errors of this package wrap where they
// apply.
var (
	ErrNotVHD         = errors.New("not a VHD image")
	ErrCorrupt        = errors.New("damaged image")
	ErrTooLarge       = errors.New("larger than is supported")
	ErrPoisoned       = errors.New("put out of use by an interrupted resize or coalesce")
	ErrEncrypted      = errors.New("encrypted images are not supported")
	ErrParentMissing  = errors.New("parent not found")
	ErrParentMismatch = errors.New("not the parent that the image was made from")
	ErrParentLoop     = errors.New("the image is its own ancestor")
	ErrParentOutside  = errors.New("parent lies outside the directories allowed for it")
	ErrTooDeep        = errors.New("chain of parents is too long")
)

// ImageError is a failure with its place: which image, where in it, and what.
type ImageError struct {
	Image string // the image's name as opened
	Place string // "footer", "BAT", "block 17"; may be empty
	Err   error  // wraps a sentinel; its text has the numbers
}

// Error is image, place and cause, in this order.
func (e *ImageError) Error() string {
	if e.Place == "" {
		return fmt.Sprintf("%s: %v", e.Image, e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", e.Image, e.Place, e.Err)
}

// Unwrap is the cause.
func (e *ImageError) Unwrap() error { return e.Err }

// kindError says what is wrong in its own words and unwraps to a sentinel.
type kindError struct {
	kind error
	text string
}

func (e *kindError) Error() string { return e.text }
func (e *kindError) Unwrap() error { return e.kind }

// corrupt is damage, said in the words given.
func corrupt(format string, args ...any) error {
	return &kindError{kind: ErrCorrupt, text: fmt.Sprintf(format, args...)}
}

// translate gives storage's sentinels their blockdev names, so that a frontend
// needs to know blockdev alone.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, storage.ErrNoSpace):
		return &renamed{blockdev.ErrNoSpace, err}
	case errors.Is(err, storage.ErrReadOnly):
		return &renamed{blockdev.ErrReadOnly, err}
	}
	return err
}

// renamed is err, which is also as.
type renamed struct{ as, err error }

func (e *renamed) Error() string   { return e.err.Error() }
func (e *renamed) Unwrap() []error { return []error{e.as, e.err} }
