package describe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// spoil writes over the file's bytes; a negative offset counts from the end.
func spoil(t *testing.T, name string, offset int64, bytes ...byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	if offset < 0 {
		info, err := f.Stat()
		check(t, err)
		offset += info.Size()
	}
	_, err = f.WriteAt(bytes, offset)
	check(t, err)
}

func salvaged(t *testing.T, name string) Disk {
	t.Helper()
	d, ok := Salvage(name)
	if !ok {
		t.Fatal("nothing salvaged")
	}
	if !d.Partial || len(d.Layers) != 1 {
		t.Fatalf("got %+v", d)
	}
	return d
}

func wantWarning(t *testing.T, d Disk, want string) {
	t.Helper()
	if got := strings.Join(d.Warnings, "\n"); !strings.Contains(got, want) {
		t.Errorf("warnings %q, want %q among them", got, want)
	}
}

func TestSalvageOfAnOrphan(t *testing.T) {
	dir := chain(t)
	check(t, os.Remove(filepath.Join(dir, "base.vhd")))
	d := salvaged(t, filepath.Join(dir, "child.vhd"))
	l := d.Layers[0]
	if l.Type != "differencing" || d.VirtualSize != 64<<20 || l.Blocks != 32 || l.AllocatedBlocks != 0 || l.Header.ParentName != "base.vhd" {
		t.Errorf("got %+v", l)
	}
	if len(d.Warnings) != 0 {
		t.Errorf("warnings of a sound file: %q", d.Warnings)
	}
}

func TestSalvageCountsTheBlocksInTheBAT(t *testing.T) {
	dir := chain(t)
	if l := salvaged(t, filepath.Join(dir, "base.vhd")).Layers[0]; l.Blocks != 32 || l.AllocatedBlocks != 1 {
		t.Errorf("%d blocks, %d allocated", l.Blocks, l.AllocatedBlocks)
	}
}

func TestSalvageTakesTheCopyOfABadFooter(t *testing.T) {
	name := filepath.Join(chain(t), "base.vhd")
	spoil(t, name, -400, 0xff)
	d := salvaged(t, name)
	if l := d.Layers[0]; l.FooterSource != vhd.FromCopy.String() || l.Type != "dynamic" || l.Header == nil {
		t.Errorf("got %+v", l)
	}
	wantWarning(t, d, "footer at the end: ")
}

func TestSalvageShowsABadFooterWhereThereIsNoOther(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fixed.vhd")
	check(t, vhd.Create(name, vhd.CreateOptions{Type: format.Fixed, Size: 1 << 20}))
	spoil(t, name, -1, 0xff)
	d := salvaged(t, name)
	if l := d.Layers[0]; l.Type != "fixed" || l.VirtualSize != 1<<20 || l.Footer.Creator != "win" {
		t.Errorf("got %+v", l)
	}
	wantWarning(t, d, "checksum")
}

func TestSalvageShowsABadHeader(t *testing.T) {
	name := filepath.Join(chain(t), "base.vhd")
	spoil(t, name, 512+1000, 0xff)
	d := salvaged(t, name)
	if l := d.Layers[0]; l.Header == nil || l.Header.BlockSize != 2<<20 {
		t.Errorf("got %+v", l)
	}
	wantWarning(t, d, "dynamic header: ")
}

func TestSalvageSurvivesOffsetsThatLeadNowhere(t *testing.T) {
	for name, c := range map[string]struct {
		size    int64 // to cut the file to, with its footer at the start
		warning string
	}{
		"no header": {512, "dynamic header: cut off by the end of the file"},
		"no BAT":    {1536, "BAT: cut off by the end of the file"},
	} {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(chain(t), "base.vhd")
			check(t, os.Truncate(image, c.size))
			d := salvaged(t, image)
			if l := d.Layers[0]; l.Type != "dynamic" || l.Blocks != 0 {
				t.Errorf("got %+v", l)
			}
			wantWarning(t, d, c.warning)
		})
	}
}

// TestSalvageCountsBoundedlyMany: of a file that is a hole, and says that it
// has a disk of 2⁴⁴ blocks.
func TestSalvageCountsBoundedlyMany(t *testing.T) {
	const size, blocks = 1 << 53, 1 << 44
	for name, tt := range map[string]struct {
		entries uint32
		want    int64
	}{"many entries": {1<<32 - 1, maxBlocks}, "few entries": {5, 5}} {
		t.Run(name, func(t *testing.T) {
			foot, head := format.NewFooter(size, format.Dynamic, time.Now()), format.NewHeader(1<<30, 512)
			foot.DataOffset, head.TableOffset, head.MaxTableEntries = 512, 1536, tt.entries
			b := make([]byte, format.FooterSize+format.HeaderSize)
			foot.Encode(b)
			head.Encode(b[format.FooterSize:])
			image := filepath.Join(t.TempDir(), "hostile.vhd")
			check(t, os.WriteFile(image, b, 0o600))
			check(t, os.Truncate(image, 17<<30))
			d := salvaged(t, image)
			if l := d.Layers[0]; l.VirtualSize != size || l.Blocks != tt.want {
				t.Errorf("%d bytes, %d blocks, want %d and %d", l.VirtualSize, l.Blocks, int64(size), tt.want)
			}
			wantWarning(t, d, fmt.Sprintf("BAT: a disk of %d blocks, of which the first %d are counted", int64(blocks), tt.want))
		})
	}
}

func TestNothingIsSalvagedOfOtherFiles(t *testing.T) {
	dir := t.TempDir()
	note := filepath.Join(dir, "note.txt")
	check(t, os.WriteFile(note, []byte("no image"), 0o600))
	empty := filepath.Join(dir, "empty")
	check(t, os.WriteFile(empty, nil, 0o600))
	for _, name := range []string{note, empty, dir, filepath.Join(dir, "none"), "/dev/null"} {
		if d, ok := Salvage(name); ok {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
