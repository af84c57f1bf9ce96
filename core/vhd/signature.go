package vhd

import (
	"bytes"
	"fmt"
)

// signatures are the first bytes of images that are often taken for VHDs.
var signatures = []struct {
	magic string
	what  string
}{
	{"vhdxfile", "this is a VHDX image, another format: convert it with `qemu-img convert -O vpc`"},
	{"QFI\xfb", "this is a qcow2 image: convert it with `qemu-img convert -O vpc`"},
	{"KDMV", "this is a VMDK image: convert it with `qemu-img convert -O vpc`"},
	{"<<< ", "this is a VirtualBox VDI image: convert it with `qemu-img convert -O vpc`"},
	{"\x1f\x8b", "this is a gzip file: unpack it first"},
	{"BZh", "this is a bzip2 file: unpack it first"},
	{"\xfd7zXZ\x00", "this is an xz file: unpack it first"},
	{"\x28\xb5\x2f\xfd", "this is a zstd file: unpack it first"},
	{"PK\x03\x04", "this is a zip file: unpack it first"},
}

// notVHD says what a file without a footer seems to be.
func notVHD(size int64, first []byte) string {
	for _, s := range signatures {
		if bytes.HasPrefix(first, []byte(s.magic)) {
			return "not a VHD image: " + s.what
		}
	}
	return fmt.Sprintf("not a VHD image: no footer (cookie \"conectix\") at the end or at the start of its %d bytes", size)
}
