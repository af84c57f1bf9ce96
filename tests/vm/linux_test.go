package vm

import (
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// TestFileSystemsOnAMountedDisk of a kernel that is not this machine's, with a
// read-only root and little memory.
func TestFileSystemsOnAMountedDisk(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			t.Parallel()
			machine{script: "fuse," + fs, scratch: true, memory: 256}.run(t)
		})
	}
}

// TestAMountedDiskIsSwapOfALittleMachine for programs that are held within a
// part of its memory.
func TestAMountedDiskIsSwapOfALittleMachine(t *testing.T) {
	for _, image := range []string{"fixed", "dynamic"} {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			machine{script: "swap,fuse," + image, scratch: true, memory: 384}.run(t)
		})
	}
}

// TestLinuxLivesOnAMountedImage as its root file system: what it writes there
// is in the .vhd, from which it boots again.
func TestLinuxLivesOnAMountedImage(t *testing.T) {
	t.Parallel()
	f := needKernel(t)
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "1G", "disk.vhd")
	m := b.Mount("disk.vhd")
	if err := f.tree.disk(t.Context(), m.Disk); err != nil {
		t.Fatal(err)
	}
	machine{script: "rootdisk,first", root: "format=raw,file=" + m.Disk}.run(t)
	b.Tool("e2fsck", "-fn", m.Disk)
	m.Unmount()
	b.OK("check", "disk.vhd")
	machine{script: "rootdisk,second", root: "format=vpc,file=" + b.Path("disk.vhd")}.run(t)
	b.OK("check", "disk.vhd")
	m = b.Mount("disk.vhd")
	b.Tool("e2fsck", "-fn", m.Disk)
	if got := b.Tool("debugfs", "-R", "cat /data/word", m.Disk); got != "of the second boot\n" {
		t.Errorf("the image's file system has %q, not what the guest wrote last", got)
	}
	m.Unmount()
}
