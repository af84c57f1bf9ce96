package blktap_test

import (
	"go/build"
	"slices"
	"testing"
)

// TestNothingHereForks: a fork after the ring was mapped makes the module
// refuse, or takes the pages of the parent.
func TestNothingHereForks(t *testing.T) {
	p, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, banned := range []string{"os/exec", "syscall", "github.com/vhdmount/vhdmount/core/vhd"} {
		if slices.Contains(p.Imports, banned) {
			t.Errorf("package blktap imports %s", banned)
		}
	}
}
