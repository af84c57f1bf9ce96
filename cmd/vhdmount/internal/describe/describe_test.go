package describe

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// chain makes base.vhd with a block of data, and child.vhd over it.
func chain(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	base := filepath.Join(dir, "base.vhd")
	check(t, vhd.Create(base, vhd.CreateOptions{Type: format.Dynamic, Size: 64 << 20}))
	img, err := vhd.Open(base, vhd.Options{})
	check(t, err)
	_, err = img.WriteAt([]byte("data"), 5<<20)
	check(t, err)
	check(t, img.Close())
	check(t, vhd.Snapshot(base, filepath.Join(dir, "child.vhd"), vhd.SnapshotOptions{}))
	return dir
}

func openReadOnly(t *testing.T, name string) *vhd.Image {
	t.Helper()
	img, err := vhd.Open(name, vhd.Options{ReadOnly: true})
	check(t, err)
	t.Cleanup(func() { img.Close() })
	return img
}

func TestImageDescribesTheWholeChain(t *testing.T) {
	dir := chain(t)
	d := Image(openReadOnly(t, filepath.Join(dir, "child.vhd")), "")
	if d.Image != filepath.Join(dir, "child.vhd") || d.VirtualSize != 64<<20 || d.Allocated != 2<<20 || d.Partial || d.Warnings == nil {
		t.Errorf("disk %+v", d)
	}
	if len(d.Layers) != 2 {
		t.Fatalf("%d layers, want 2", len(d.Layers))
	}
	child, base := d.Layers[0], d.Layers[1]
	if child.Type != "differencing" || child.AllocatedBlocks != 0 || child.Blocks != 32 || child.Parent != filepath.Join(dir, "base.vhd") {
		t.Errorf("child %+v", child)
	}
	if base.Type != "dynamic" || base.AllocatedBlocks != 1 || base.Parent != "" {
		t.Errorf("base %+v", base)
	}
	if child.Header.ParentID != base.Footer.ID || base.Header.ParentID != "" {
		t.Errorf("the child's parent id %q, the base's id %q", child.Header.ParentID, base.Footer.ID)
	}
	info, err := os.Stat(filepath.Join(dir, "base.vhd"))
	check(t, err)
	if base.FileSize != info.Size() || base.FileAllocated == 0 {
		t.Errorf("base's file: %d and %d, want %d", base.FileSize, base.FileAllocated, info.Size())
	}
}

// TestAnImageInUseIsDescribedAsItIsNow, not as it was when it was opened.
func TestAnImageInUseIsDescribedAsItIsNow(t *testing.T) {
	dir := chain(t)
	name := filepath.Join(dir, "child.vhd")
	img, err := vhd.Open(name, vhd.Options{})
	check(t, err)
	before := Image(img, "").Layers
	for _, off := range []int64{0, 40 << 20} {
		_, err = img.WriteAt([]byte("data"), off)
		check(t, err)
	}
	now := Image(img, "").Layers
	info, err := os.Stat(name)
	check(t, err)
	if before[0].AllocatedBlocks != 0 || now[0].AllocatedBlocks != 2 || now[0].FileSize != info.Size() || now[0].FileSize <= before[0].FileSize {
		t.Errorf("the image: %+v\nbefore     %+v, and its file has %d bytes", now[0], before[0], info.Size())
	}
	if before[1].AllocatedBlocks != 1 || now[1].AllocatedBlocks != 1 || now[1].FileSize != before[1].FileSize {
		t.Errorf("its parent: %+v\nbefore      %+v", now[1], before[1])
	}
	check(t, img.Close())
	reopened := Image(openReadOnly(t, name), "").Layers[0]
	if reopened.AllocatedBlocks != 2 || reopened.Blocks != now[0].Blocks {
		t.Errorf("opened again: %+v", reopened)
	}
}

func TestLocatorsAreShownWithTheirPaths(t *testing.T) {
	dir := chain(t)
	d := Image(openReadOnly(t, filepath.Join(dir, "child.vhd")), "")
	paths := map[string]string{}
	for _, l := range d.Layers[0].Header.Locators {
		if l.Error != "" {
			t.Errorf("locator %d: %s", l.Slot, l.Error)
		}
		paths[l.Code] = l.Path
	}
	if paths["W2ru"] != "./base.vhd" {
		t.Errorf("W2ru says %q (all: %v)", paths["W2ru"], paths)
	}
}

func TestRelativeNamesAreMadeAbsoluteWhereAsked(t *testing.T) {
	dir := chain(t)
	t.Chdir(dir)
	img := openReadOnly(t, "child.vhd")
	if d := Image(img, ""); d.Image != "child.vhd" {
		t.Errorf("as it was named: %s", d.Image)
	}
	t.Chdir("/") // as a server in the background does
	d := Image(img, dir)
	if d.Image != filepath.Join(dir, "child.vhd") || d.Layers[0].Image != d.Image {
		t.Errorf("made absolute: %s, %s", d.Image, d.Layers[0].Image)
	}
	if got := d.Layers[0].Header.Locators[0]; got.Error != "" {
		t.Errorf("a locator read from elsewhere: %s", got.Error)
	}
}

func TestJSONHasTheFieldsThatScriptsReadAndNullForNoOffset(t *testing.T) {
	dir := chain(t)
	b, err := json.Marshal(Image(openReadOnly(t, filepath.Join(dir, "base.vhd")), ""))
	check(t, err)
	for _, want := range []string{
		`"virtual_size":67108864`, `"allocated":2097152`, `"type":"dynamic"`, `"blocks":32`, `"allocated_blocks":1`, `"footer_source":"end"`,
		`"creator":"win"`, `"creator_os":"Wi2k"`, `"version":"1.0"`, `"current_size":67108864`, `"geometry":{"cylinders":963,"heads":8,"sectors":17,"size":67055616}`,
		`"block_size":2097152`, `"table_offset":1536`, `"data_offset":512`, `"data_offset":null`, `"warnings":[]`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("lacks %s in\n%s", want, b)
		}
	}
	if strings.Contains(string(b), "partial") || strings.Contains(string(b), "parent_id") {
		t.Errorf("says more than there is:\n%s", b)
	}
}

func TestTextShowsBothSizesWhenTheyDiffer(t *testing.T) {
	dir := chain(t)
	var b strings.Builder
	check(t, Image(openReadOnly(t, filepath.Join(dir, "base.vhd")), "").Text(&b))
	for _, want := range []string{
		"  virtual size        64 MiB (67108864 bytes)\n",
		"    by footer         64 MiB (67108864 bytes)\n",
		"    by geometry       63.95 MiB (67055616 bytes)\n",
		"  allocated           2 MiB (2097152 bytes)\n",
		"  blocks              32, 1 allocated\n",
		"    creator           \"win\" version 10.0 (Windows or Hyper-V)\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %q in\n%s", want, &b)
		}
	}
}

func TestTextOfEqualSizesShowsOne(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fixed.vhd")
	check(t, vhd.Create(name, vhd.CreateOptions{Type: format.Fixed, Size: 4 * 17 * 100 * 512}))
	var b strings.Builder
	check(t, Image(openReadOnly(t, name), "").Text(&b))
	if strings.Contains(b.String(), "by geometry") || strings.Contains(b.String(), "dynamic header") {
		t.Errorf("got\n%s", &b)
	}
}

func TestTextIsSafeOnATerminal(t *testing.T) {
	d := Disk{
		Layers: []Layer{{
			Image: "a\x1b[2J.vhd", Type: "differencing",
			Header: &Header{ParentName: "\x1b]0;owned\a", Locators: []Locator{{Code: "W2ru", Path: "x\r\ny"}}},
			Footer: &Footer{Creator: "\x1b"},
		}},
		Warnings: []string{"one\ntwo"},
	}
	var b strings.Builder
	check(t, d.Text(&b))
	if strings.ContainsAny(b.String(), "\x1b\a\r") || strings.Contains(b.String(), "\ntwo") {
		t.Errorf("got %q", &b)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestTextReportsAWriteThatFails(t *testing.T) {
	if err := (Disk{Layers: []Layer{{}}}).Text(full{}); err != os.ErrClosed {
		t.Errorf("got %v", err)
	}
}
