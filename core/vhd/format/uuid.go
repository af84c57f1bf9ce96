package format

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// UUID identifies an image; a child names its parent by it. The bytes are in
// the order of the canonical text.
type UUID [16]byte

// NewUUID is a random UUID (RFC 9562 version 4).
func NewUUID() UUID {
	var u UUID
	rand.Read(u[:]) // never fails: package crypto/rand ends the program instead
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

// ParseUUID reads the canonical 8-4-4-4-12 text, in either case. Anything else
// is an *Error wrapping ErrField.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	bad := &Error{Structure: "UUID", Err: ErrField, Detail: fmt.Sprintf("%q is not of the form 8-4-4-4-12", s)}
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, bad
	}
	digits := strings.ReplaceAll(s, "-", "")
	if len(digits) != 32 {
		return UUID{}, bad
	}
	if _, err := hex.Decode(u[:], []byte(digits)); err != nil {
		return UUID{}, bad
	}
	return u, nil
}

// IsZero tells whether u is the null UUID: no identity, or as a parent's that
// the parent is a raw image.
func (u UUID) IsZero() bool { return u == UUID{} }

// String is the canonical text, lower case.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}
