package format

import (
	"errors"
	"testing"
)

func TestUUIDText(t *testing.T) {
	u := UUID{0xf8, 0x4f, 0x16, 0x36, 0xcd, 0x9e, 0x90, 0x41, 0xa6, 0x9e, 0x0c, 0xc2, 0x38, 0x0e, 0x41, 0x6a}
	const text = "f84f1636-cd9e-9041-a69e-0cc2380e416a"
	if u.String() != text {
		t.Errorf("%v, want %s", u, text)
	}
	for _, s := range []string{text, "F84F1636-CD9E-9041-A69E-0CC2380E416A"} {
		if got, err := ParseUUID(s); err != nil || got != u {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
}

func TestParseUUIDRefuses(t *testing.T) {
	for _, s := range []string{
		"", "f84f1636cd9e9041a69e0cc2380e416a", "{f84f1636-cd9e-9041-a69e-0cc2380e416a}",
		"f84f1636-cd9e-9041-a69e-0cc2380e416", "f84f1636-cd9e-9041-a69e-0cc2380e416g",
		"f84f1636-cd9e-9041-a69e-0cc2380e-4-1", "f84f163-6cd9e-9041-a69e-0cc2380e416a", "f84f1636-cd9e-9041-a69e-0cc2380e41-a",
	} {
		got, err := ParseUUID(s)
		if !errors.Is(err, ErrField) || !got.IsZero() {
			t.Errorf("%q: %v, %v; want %v", s, got, err, ErrField)
		}
	}
}

func TestNewUUIDIsRandomVersion4(t *testing.T) {
	seen := make(map[UUID]bool)
	for range 100 {
		u := NewUUID()
		if u[6]>>4 != 4 || u[8]>>6 != 2 {
			t.Fatalf("%v is not of version 4", u)
		}
		if seen[u] || u.IsZero() {
			t.Fatalf("%v came twice", u)
		}
		seen[u] = true
		if back, err := ParseUUID(u.String()); err != nil || back != u {
			t.Fatalf("%v comes back as %v, %v", u, back, err)
		}
	}
}

func TestUUIDIsZero(t *testing.T) {
	if !(UUID{}).IsZero() || (UUID{15: 1}).IsZero() {
		t.Error("only the null UUID is zero")
	}
}
