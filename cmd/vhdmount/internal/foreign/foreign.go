// Package foreign recognises files that are no VHD, so that whoever opens one
// by mistake is told what it is and which tool reads it.
package foreign

import (
	"bytes"
	"io"
	"unicode/utf8"
)

// headSize is how much of a file's start is looked at, in bytes: enough for
// the superblock that lies deepest, that of btrfs.
const headSize = 68 << 10

// textSize is how many bytes must be text for a file to count as such.
const textSize = 4 << 10

type signature struct {
	offset int
	magic  string
	what   string // "a VHDX image"
	advice string // what to do
}

const (
	convert = "qemu-img convert -O vpc turns it into a VHD"
	plain   = "loop devices (losetup) and qemu read it as it is"
	unpack  = "unpack it first"
)

// signatures in the order they are tried: containers before the file systems
// that a container's first sectors might look like.
var signatures = []signature{
	{0, "vhdxfile", "a VHDX image", convert},
	{0, "QFI\xfb", "a qcow2 image", convert},
	{0, "KDMV", "a VMDK image", convert},
	{0, "COWD", "a VMDK image", convert},
	{0, "# Disk DescriptorFile", "the descriptor of a VMDK image", convert},
	{0x40, "\x7f\x10\xda\xbe", "a VDI image", convert},
	{0, "QED\x00", "a QED image", convert},
	{0, "WithoutFreeSpace", "a Parallels image", convert},
	{0, "WithouFreSpacExt", "a Parallels image", convert},
	{0, "\x1f\x8b", "gzip data", unpack},
	{0, "\xfd7zXZ\x00", "xz data", unpack},
	{0, "BZh", "bzip2 data", unpack},
	{0, "\x28\xb5\x2f\xfd", "zstd data", unpack},
	{0, "PK\x03\x04", "a zip archive", unpack},
	{0, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive", unpack},
	{0, "\x7fELF", "a program", "look for the image elsewhere"},
	{0, "LUKS\xba\xbe", "a raw LUKS volume", plain},
	{0, "XFSB", "a raw XFS file system", plain},
	{3, "NTFS    ", "a raw NTFS file system", plain},
	{0x8001, "CD001", "an ISO 9660 image", plain},
	{0x438, "\x53\xef", "a raw ext2, ext3 or ext4 file system", plain},
	{0x10040, "_BHRfS_M", "a raw btrfs file system", plain},
	{512, "EFI PART", "a raw disk with a GPT", plain},
	{510, "\x55\xaa", "a raw disk or boot sector", plain},
}

// Kind is what a file was recognised as.
type Kind struct {
	What   string // with its article: "a VHDX image"
	Advice string // what to do; never empty
}

// Identify looks at the start of a file of the given size. It reports false
// where it knows nothing of it, or can't read it.
func Identify(r io.ReaderAt, size int64) (Kind, bool) {
	if size == 0 {
		return Kind{"an empty file", "was it copied to the end?"}, true
	}
	head := make([]byte, min(headSize, size))
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return Kind{}, false
	}
	head = head[:n]
	for _, s := range signatures {
		if s.offset < len(head) && bytes.HasPrefix(head[s.offset:], []byte(s.magic)) {
			return Kind{s.what, s.advice}, true
		}
	}
	switch {
	case isText(head):
		return Kind{"a text file", "name the image itself"}, true
	case bytes.HasPrefix(head, []byte("conectix")):
		return Kind{"a VHD cut short", "the copy of its footer at the start is not enough: was it copied to the end?"}, true
	}
	return Kind{}, false
}

// isText tells whether the first bytes are UTF-8 without control characters.
func isText(head []byte) bool {
	head = head[:min(textSize, len(head))]
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		cutOff := len(head) < utf8.UTFMax && !utf8.FullRune(head)
		if r == utf8.RuneError && n == 1 && !cutOff || r < ' ' && !bytes.ContainsRune([]byte("\t\r\n\f\x1b"), r) {
			return false
		}
		head = head[n:]
	}
	return true
}
