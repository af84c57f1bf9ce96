package vm

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

var withVM = flag.Bool("vm", false, "run the test that boots a guest, which needs qemu-system-x86_64 (make deps-vm)")

// guest is a program for the first sector of a disk: it reads sector 5 by the
// firmware's disk services, writes what is there to the serial port, up to a
// zero byte, then writes it to sector 9, and powers off by the debug-exit
// device.
var guest = []byte{
	0xFA, 0x31, 0xC0, 0x8E, 0xD8, 0x8E, 0xD0, 0xBC, 0x00, 0x7C, 0xFB, // cli; ax = ds = ss = 0; sp = 7C00; sti
	0xBE, packetAt & 0xFF, packetAt >> 8, // si = the request
	0xB4, 0x42, 0xCD, 0x13, // int 13, 42: read by it (dl is the disk already)
	0x72, 0x29, // carry: to the end
	0x52,             // push dx
	0xBE, 0x00, 0x80, // si = 8000, what was read
	0xAC, 0x84, 0xC0, 0x74, 0x06, // lodsb; zero: on
	0xBA, 0xF8, 0x03, 0xEE, // out 3F8
	0xEB, 0xF5, // next byte
	0x5A,                                 // pop dx
	0xBE, packetAt & 0xFF, packetAt >> 8, // si = the request
	0xC6, 0x44, 0x08, 0x09, // its sector is now 9
	0xB8, 0x00, 0x43, 0xCD, 0x13, // int 13, 43: write by it
	0x72, 0x0B, // carry: to the end
	0xBA, 0xF4, 0x00, 0xB0, 0x10, 0xEE, // out F4, 10: exit code 33
	0xF4, 0xEB, 0xFD, // hlt, for ever
	0x90, 0x90,
	0xBA, 0xF4, 0x00, 0xB0, 0x20, 0xEE, // out F4, 20: exit code 65
	0xF4, 0xEB, 0xFD, // hlt, for ever
}

const (
	packetOffset = 0x60
	packetAt     = 0x7C00 + packetOffset // where the firmware loads it

	guestSucceeded = 0x10<<1 | 1
)

// bootSector is guest with its request and the signature that firmware wants.
func bootSector() []byte {
	sector := make([]byte, 512)
	copy(sector, guest)
	packet := sector[packetOffset:]
	packet[0] = 16                                    // its size
	binary.LittleEndian.PutUint16(packet[2:], 1)      // sectors
	binary.LittleEndian.PutUint16(packet[4:], 0x8000) // to here
	binary.LittleEndian.PutUint64(packet[8:], 5)      // from here
	sector[510], sector[511] = 0x55, 0xAA
	return sector
}

// needVM is the need of qemu's emulator: without -vm the test runs where it
// happens to be installed.
func needVM(t *testing.T) {
	t.Helper()
	harness.Fuse(t)
	_, installed := harness.Find("qemu-system-x86_64")
	switch {
	case installed:
	case *withVM:
		t.Fatal("-vm was given, but qemu-system-x86_64 is not installed (make deps-vm)")
	default:
		t.Skip("qemu-system-x86_64 is not installed (make deps-vm)")
	}
}

// boot runs the guest from a disk, and checks that it read greeting.
func boot(t *testing.T, b *harness.Box, file, format, greeting string) {
	t.Helper()
	r := b.Try("qemu-system-x86_64", "-machine", "accel=kvm:tcg", "-m", "16", "-display", "none", "-monitor", "none", "-nodefaults", "-no-reboot",
		"-serial", "file:"+b.Path("serial"), "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
		"-drive", "if=ide,format="+format+",file="+file)
	if got := string(b.Read("serial")); r.Code != guestSucceeded || got != greeting {
		t.Errorf("the guest of %s: exit code %d, it wrote %q, want %d and %q: %s", file, r.Code, got, guestSucceeded, greeting, r.Stderr)
	}
}

// TestAGuestBootsFromTheMountedDiskAndFromTheImage, for which the disk was
// edited, and what the guest writes is seen from here.
func TestAGuestBootsFromTheMountedDiskAndFromTheImage(t *testing.T) {
	for _, kind := range []string{"dynamic", "fixed"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			needVM(t)
			b := harness.New(t)
			b.OK("create", "--type", kind, "64M", "disk.vhd")
			m := b.Mount("disk.vhd")
			edit(t, m, bootSector(), 0)
			edit(t, m, []byte("booted from the mounted disk\n"), 5*512)
			boot(t, b, m.Disk, "raw", "booted from the mounted disk\n")
			wantGuestWrote(t, m, "booted from the mounted disk\n")
			edit(t, m, []byte("and now from the edited image\n"), 5*512)
			m.Unmount()
			b.OK("check", "disk.vhd")
			boot(t, b, "disk.vhd", "vpc", "and now from the edited image\n")
			b.OK("check", "disk.vhd")
			wantGuestWrote(t, b.Mount("disk.vhd"), "and now from the edited image\n")
		})
	}
}

// TestAGuestBootsFromAClone of a gold master, which stays as it is.
func TestAGuestBootsFromAClone(t *testing.T) {
	t.Parallel()
	needVM(t)
	b := harness.New(t)
	b.OK("create", "64M", "gold.vhd")
	m := b.Mount("gold.vhd")
	edit(t, m, bootSector(), 0)
	edit(t, m, []byte("gold\n"), 5*512)
	m.Unmount()
	before := b.Sum("gold.vhd")
	b.OK("snapshot", "gold.vhd", "clone.vhd")
	m = b.Mount("clone.vhd")
	edit(t, m, []byte("a clone\n"), 5*512)
	boot(t, b, m.Disk, "raw", "a clone\n")
	wantGuestWrote(t, m, "a clone\n")
	m.Unmount()
	if b.Sum("gold.vhd") != before {
		t.Error("the master changed")
	}
}

func edit(t *testing.T, m *harness.Mount, data []byte, off int64) {
	t.Helper()
	f := m.Open(os.O_WRONLY)
	if _, err := f.WriteAt(data, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// wantGuestWrote checks sector 9.
func wantGuestWrote(t *testing.T, m *harness.Mount, text string) {
	t.Helper()
	f := m.Open(os.O_RDONLY)
	defer f.Close()
	got := make([]byte, 512)
	if _, err := f.ReadAt(got, 9*512); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(got, append([]byte(text), 0)) {
		t.Errorf("the guest wrote %q, want %q", got[:40], text)
	}
}
