package registry

import (
	"os"
	"path/filepath"
	"testing"
)

// TestAPlantedLinkLeadsNowhere: what is found in place of a file of the
// registry is replaced or refused, and what a link leads to stays as it was.
func TestAPlantedLinkLeadsNowhere(t *testing.T) {
	for planted, refused := range map[string]bool{".disk-1.tmp": true, "disk-1.json": false} {
		t.Run(planted, func(t *testing.T) {
			d, err := Open(filepath.Join(t.TempDir(), "run"))
			check(t, err)
			target := filepath.Join(t.TempDir(), "precious")
			check(t, os.WriteFile(target, []byte("precious"), 0o600))
			check(t, os.Symlink(target, filepath.Join(d.Path(), planted)))
			h, err := d.Add("disk-1", Entry{Image: "/disk.vhd"})
			if (err != nil) != refused {
				t.Errorf("Add: %v", err)
			}
			if err == nil {
				check(t, h.Update(Entry{Image: "/other.vhd"}))
				check(t, h.Remove())
			}
			if b, err := os.ReadFile(target); err != nil || string(b) != "precious" {
				t.Errorf("the link's target has %q, %v", b, err)
			}
		})
	}
}

// TestAnUpdateNeedsNoNewFile, for a server that can make none; and one that is
// shorter leaves nothing of the one before.
func TestAnUpdateNeedsNoNewFile(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "run"))
	check(t, err)
	h, err := d.Add("disk-1", Entry{Image: "/a/very/long/name/of/an/image.vhd", Frontend: "fuse"})
	check(t, err)
	before, err := os.Stat(d.entry("disk-1"))
	check(t, err)
	check(t, h.Update(Entry{Image: "/b"}))
	after, err := os.Stat(d.entry("disk-1"))
	check(t, err)
	if !os.SameFile(before, after) {
		t.Error("the entry is another file")
	}
	records, err := d.Records()
	check(t, err)
	if len(records) != 1 || records[0].Entry != (Entry{Image: "/b"}) || !records[0].Alive {
		t.Errorf("records %+v", records)
	}
	check(t, h.Remove())
}
