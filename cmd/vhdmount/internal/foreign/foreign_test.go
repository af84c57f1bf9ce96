package foreign

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// image is 128 KiB of zeros with magic at an offset.
func image(offset int, magic string) []byte {
	b := make([]byte, 128<<10)
	copy(b[offset:], magic)
	return b
}

func TestIdentify(t *testing.T) {
	for name, c := range map[string]struct {
		content []byte
		want    string // part of What; empty: unknown
	}{
		"vhdx":          {image(0, "vhdxfile"), "VHDX"},
		"qcow2":         {image(0, "QFI\xfb\x00\x00\x00\x03"), "qcow2"},
		"vmdk":          {image(0, "KDMV"), "VMDK"},
		"descriptor":    {[]byte("# Disk DescriptorFile\nversion=1\n"), "descriptor of a VMDK"},
		"vdi":           {image(0x40, "\x7f\x10\xda\xbe"), "VDI"},
		"gzip":          {[]byte("\x1f\x8b\x08"), "gzip"},
		"ext4":          {image(0x438, "\x53\xef"), "ext4"},
		"xfs":           {image(0, "XFSB"), "XFS"},
		"btrfs":         {image(0x10040, "_BHRfS_M"), "btrfs"},
		"iso":           {image(0x8001, "CD001"), "ISO 9660"},
		"ntfs":          {image(0, "\xeb\x52\x90NTFS    "), "NTFS"},
		"gpt over mbr":  {append(append(image(510, "\x55\xaa")[:512], "EFI PART"...), make([]byte, 4096)...), "GPT"},
		"mbr":           {image(510, "\x55\xaa"), "boot sector"},
		"text":          {[]byte("just\ta note\r\n"), "text file"},
		"utf-8 text":    {[]byte(strings.Repeat("käse ", 3000)), "text file"},
		"empty":         {nil, "empty file"},
		"cut-short VHD": {image(0, "conectix"), "cut short"},
		"zeros":         {image(0, ""), ""},
		"random":        {[]byte("\x91\x02\xfe\x80 text after it"), ""},
		"latin-1":       {[]byte("k\xe4se and more"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := Identify(bytes.NewReader(c.content), int64(len(c.content)))
			switch {
			case ok != (c.want != ""):
				t.Errorf("recognised: %v, as %+v", ok, got)
			case !strings.Contains(got.What, c.want):
				t.Errorf("%q, want %q in it", got.What, c.want)
			case ok && got.Advice == "":
				t.Error("no advice")
			}
		})
	}
}

type unreadable struct{}

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, errors.New("input/output error") }

func TestIdentifyKnowsNothingOfWhatItCantRead(t *testing.T) {
	if k, ok := Identify(unreadable{}, 4096); ok {
		t.Errorf("recognised as %+v", k)
	}
}

func TestMagicAtTheVeryEndIsSeenAndBeyondItIsNot(t *testing.T) {
	content := image(0x8001, "CD001")
	for size, want := range map[int]bool{0x8001 + 5: true, 0x8001 + 4: false, 0x8001: false} {
		if _, ok := Identify(bytes.NewReader(content[:size]), int64(size)); ok != want {
			t.Errorf("%d bytes: recognised %v, want %v", size, ok, want)
		}
	}
}
