package blktap_test

import (
	"go/build"
	"path/filepath"
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
		for _, at := range p.ImportPos[banned] {
			// For one call in all threads, which only that package has.
			if banned == "syscall" && filepath.Base(at.Filename) == "memlock.go" {
				continue
			}
			t.Errorf("%s: package blktap imports %s", at, banned)
		}
	}
}
