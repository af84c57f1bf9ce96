package format

import (
	"strconv"
	"strings"
)

// Creator is the program that made an image, as it calls itself in the footer.
// Some rules of reading hang on it, the disk's size above all.
type Creator [4]byte

// Creators that are known. Treat them as constants.
var (
	CreatorWindows       = Creator{'w', 'i', 'n', ' '} // Windows, Hyper-V; this project's own images
	CreatorVPC           = Creator{'v', 'p', 'c', ' '} // Virtual PC
	CreatorVirtualServer = Creator{'v', 's', ' ', ' '} // Virtual Server
	CreatorQEMU          = Creator{'q', 'e', 'm', 'u'} // qemu-img, size rounded to the geometry
	CreatorQEMUForce     = Creator{'q', 'e', 'm', '2'} // qemu-img with force_size
	CreatorTap           = Creator{'t', 'a', 'p', 0}   // XenServer's tapdisk and vhd-util
	CreatorXenConvert    = Creator{'C', 'T', 'X', 'S'} // Citrix XenConvert
	CreatorDisk2VHD      = Creator{'d', '2', 'v', 0}   // Sysinternals Disk2vhd
	CreatorAzure         = Creator{'w', 'a', 0, 0}     // Azure
	CreatorVirtualBox    = Creator{'v', 'b', 'o', 'x'} // VirtualBox
	CreatorDiscUtils     = Creator{'d', 'u', 't', 'l'} // DiscUtils
)

// String is the name without trailing NULs and spaces; what can't be printed
// is escaped, so that it is safe on a terminal.
func (c Creator) String() string { return printable(c[:]) }

// Name is the program's common name, or empty where the creator is unknown.
func (c Creator) Name() string {
	switch c {
	case CreatorWindows:
		return "Windows or Hyper-V"
	case CreatorVPC:
		return "Virtual PC"
	case CreatorVirtualServer:
		return "Virtual Server"
	case CreatorQEMU, CreatorQEMUForce:
		return "qemu-img"
	case CreatorTap:
		return "XenServer"
	case CreatorXenConvert:
		return "XenConvert"
	case CreatorDisk2VHD:
		return "Disk2vhd"
	case CreatorAzure:
		return "Azure"
	case CreatorVirtualBox:
		return "VirtualBox"
	case CreatorDiscUtils:
		return "DiscUtils"
	}
	return ""
}

// isTap tells whether tapdisk's rules apply. Like tapdisk it compares three
// bytes alone.
func (c Creator) isTap() bool { return [3]byte(c[:3]) == [3]byte(CreatorTap[:3]) }

// HostOS is the system that an image was made on. tapdisk leaves it zero.
type HostOS [4]byte

// Host systems that are known. Treat them as constants.
var (
	HostWindows = HostOS{'W', 'i', '2', 'k'}
	HostMac     = HostOS{'M', 'a', 'c', ' '}
)

// String is the name as Creator.String has it.
func (h HostOS) String() string { return printable(h[:]) }

// printable is b without trailing NULs and spaces, safe on a terminal.
func printable(b []byte) string {
	quoted := strconv.QuoteToASCII(strings.TrimRight(string(b), "\x00 "))
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// creatorVersion is a creator version as every program but qemu numbers them.
func creatorVersion(major, minor uint32) uint32 { return major<<16 | minor }
