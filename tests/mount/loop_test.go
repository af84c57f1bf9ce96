package mount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// fileSystem is one that is made on a loop device on the disk.
type fileSystem struct {
	size string   // of the disk
	make []string // with the device after it
	fsck []string // with the device after it; must find nothing
}

var fileSystems = map[string]fileSystem{
	"ext4":  {"128M", []string{"mkfs.ext4", "-q"}, []string{"e2fsck", "-f", "-n"}},
	"xfs":   {"320M", []string{"mkfs.xfs", "-q"}, []string{"xfs_repair", "-n"}},
	"btrfs": {"160M", []string{"mkfs.btrfs", "-q"}, []string{"btrfs", "check", "--readonly"}},
}

// TestLoopDevicesOnTheDisk: the kernel's file systems on it, files in them,
// fstrim reaching the image, and all clean and there after another mount.
func TestLoopDevicesOnTheDisk(t *testing.T) {
	for name, c := range fileSystems {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Root(t)
			harness.Tools(t, "losetup", "fstrim", c.make[0], c.fsck[0])
			b, m := mounted(t, c.size)
			device := b.Loop(m.Disk)
			b.Tool(c.make[0], append(c.make[1:], device)...)
			files := b.Mkdir("files")
			b.Tool("mount", device, files)
			b.Write("kept", harness.Random(1, 5<<20))
			b.Tool("cp", "kept", filepath.Join(files, "kept"))
			trimmed(t, b, m, files)
			line := b.Fails([]string{"unmount", m.Point}, "in use", device)
			if !strings.Contains(line, "losetup -d "+device) {
				t.Errorf("what to do about %s is not said: %s", device, line)
			}
			b.Tool("umount", files)
			b.Tool(c.fsck[0], append(c.fsck[1:], device)...)
			detach(t, b, device)
			m.Unmount()

			b.OK("check", "disk.vhd")
			m = b.Mount("disk.vhd")
			device = b.Loop(m.Disk)
			b.Tool(c.fsck[0], append(c.fsck[1:], device)...)
			b.Tool("mount", "-o", "ro", device, files)
			b.Tool("cmp", "kept", filepath.Join(files, "kept"))
			b.Tool("umount", files)
			detach(t, b, device)
			m.Unmount()
		})
	}
}

// trimmed fills 40 MiB of a file system, removes that, trims, and checks that
// the image's allocation followed both ways.
func trimmed(t *testing.T, b *harness.Box, m *harness.Mount, files string) {
	t.Helper()
	b.Write("bulk", harness.Random(2, 40<<20))
	b.Tool("cp", "bulk", filepath.Join(files, "bulk"))
	b.Tool("sync", "-f", files)
	full, fullFile := info(t, b, "disk.vhd").Allocated, allocated(t, b.Path("disk.vhd"))
	if full < 40<<20 {
		t.Errorf("with 40 MiB in a file, %d bytes are allocated", full)
	}
	check(t, os.Remove(filepath.Join(files, "bulk")))
	// A removed file's space is free some time later, to xfs.
	b.Eventually("fstrim gives the space back", func() bool {
		b.Tool("sync", "-f", files)
		b.Tool("fstrim", files)
		b.Tool("sync", "-f", files)
		f := m.Open(os.O_RDWR)
		check(t, f.Sync())
		check(t, f.Close())
		return info(t, b, "disk.vhd").Allocated < full-(30<<20) && allocated(t, b.Path("disk.vhd")) < fullFile-(30<<20)
	})
}

// detach takes a loop device away. The kernel does that when its last user has
// closed it, and udev may be looking at it.
func detach(t *testing.T, b *harness.Box, device string) {
	t.Helper()
	b.Tool("losetup", "-d", device)
	b.Eventually(device+" is free", func() bool {
		_, err := os.Stat("/sys/block/" + filepath.Base(device) + "/loop/backing_file")
		return os.IsNotExist(err)
	})
}
