package partition

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// A golden disk is a text file: its size, and each 16 bytes of it that aren't
// all zeros, as their offset and in hexadecimal.
//
//	size 4194304
//	000001f0: 000000000000000000000000000055aa

const goldenLine = 16

func goldenFile(name string) string { return filepath.Join("testdata", name+".disk") }

// golden is the disk that was kept under a name.
func golden(t testing.TB, name string) *blockdev.Memory {
	t.Helper()
	f, err := os.Open(goldenFile(name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var dev *blockdev.Memory
	for s := bufio.NewScanner(f); s.Scan(); {
		var off int64
		if dev == nil {
			if _, err := fmt.Sscanf(s.Text(), "size %d", &off); err != nil {
				t.Fatal(err)
			}
			dev = blockdev.NewMemory(off)
			continue
		}
		at, line, _ := strings.Cut(s.Text(), ": ")
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(at, "%x", &off); err != nil {
			t.Fatal(err)
		}
		put(t, dev, off, b)
	}
	return dev
}

// keep writes the golden file of a disk image.
func keep(t *testing.T, name string, image []byte) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "size %d\n", len(image))
	for off := 0; off < len(image); off += goldenLine {
		if line := string(image[off:][:goldenLine]); strings.Trim(line, "\x00") != "" {
			fmt.Fprintf(&b, "%08x: %x\n", off, line)
		}
	}
	if err := os.WriteFile(goldenFile(name), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// put writes bytes to a device.
func put(t testing.TB, dev blockdev.Device, off int64, b []byte) {
	t.Helper()
	if _, err := dev.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// get reads bytes of a device.
func get(t testing.TB, dev blockdev.Device, off int64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := dev.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

func copyDevice(dst, src blockdev.Device) error {
	b := make([]byte, src.Size())
	if _, err := src.ReadAt(b, 0); err != nil {
		return err
	}
	_, err := dst.WriteAt(b, 0)
	return err
}
