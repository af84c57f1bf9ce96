package mount

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// TestUnmountLosesNothingThatWasWritten, of a lot that nobody asked to flush.
func TestUnmountLosesNothingThatWasWritten(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "300M")
	const piece, pieces = 1 << 20, 256
	f := m.Open(os.O_WRONLY)
	for i := range pieces {
		writeAt(t, f, harness.Random(uint64(i), piece), int64(i)*piece)
	}
	check(t, f.Close())
	m.Unmount()
	b.OK("check", "disk.vhd")
	f = b.Mount("disk.vhd").Open(os.O_RDONLY)
	for i := range pieces {
		if !bytes.Equal(readAt(t, f, piece, int64(i)*piece), harness.Random(uint64(i), piece)) {
			t.Fatalf("MiB %d is not what was written", i)
		}
	}
}

// TestTheImageIsClosedWhenUnmountReturns: qemu and a second mount find it free.
func TestTheImageIsClosedWhenUnmountReturns(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	for i := range 5 {
		f := m.Open(os.O_RDWR)
		writeAt(t, f, harness.Random(uint64(i), 4096), int64(i)<<20)
		check(t, f.Close())
		b.OK("unmount", m.Point)
		b.OK("check", "disk.vhd") // takes the lock
		m = b.Mount("disk.vhd")
	}
	if size := info(t, b, "disk.vhd").Layers[0].FileSize; size < 5*4096 {
		t.Errorf("the file has %d bytes", size)
	}
}

func TestUnmountNamesWhoHoldsTheDisk(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	pid := m.PID()
	holder := exec.Command("sleep", "1000")
	holder.Stdin = m.Open(os.O_RDONLY)
	check(t, holder.Start())
	check(t, holder.Stdin.(*os.File).Close())
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })

	b.Fails([]string{"unmount", m.Point}, m.Point, "in use", "sleep (pid "+strconv.Itoa(holder.Process.Pid)+")", "--lazy")
	if list := b.List(); len(list) != 1 || list[0].State != "running" || list[0].PID != pid {
		t.Errorf("after it was refused: %+v; want it running still", list)
	}
	check(t, holder.Process.Kill())
	holder.Wait()
	m.Unmount()
}

func TestLazyUnmountHidesTheDiskAndClosesTheImageWithItsLastUser(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	pid := m.PID()
	f := m.Open(os.O_RDWR)
	r := b.Run("unmount", "--lazy", m.Point)
	if r.Code != 0 || r.Stdout != "" || !strings.Contains(r.Stderr, "hidden") {
		t.Errorf("unmount --lazy: %+v", r)
	}
	if entries, err := os.ReadDir(m.Point); err != nil || len(entries) != 0 {
		t.Errorf("the mount point shows %v, %v", entries, err)
	}
	if list := b.List(); len(list) != 1 || list[0].State != "closing" {
		t.Errorf("the list: %+v; want it closing", list)
	}
	b.Fails([]string{"mount", "disk.vhd"}, "in use")
	data := harness.Random(1, 1<<20)
	writeAt(t, f, data, 3<<20) // it works on
	check(t, f.Close())
	b.AwaitEnd(pid)
	if list := b.List(); len(list) != 0 {
		t.Errorf("after its end: %+v", list)
	}
	b.OK("check", "disk.vhd")
	if !bytes.Equal(readAt(t, b.Mount("disk.vhd").Open(os.O_RDONLY), len(data), 3<<20), data) {
		t.Error("what was written while it was hidden is not there")
	}
}

func TestLazyUnmountOfAnIdleDiskClosesIt(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	r := b.Run("unmount", "--lazy", "disk.vhd")
	if r != (harness.Result{}) {
		t.Errorf("unmount --lazy: %+v", r)
	}
	b.CheckGone(m.Point)
	b.OK("check", "disk.vhd")
}

// TestUmountByOthersEndsTheServer, with nothing lost.
func TestUmountByOthersEndsTheServer(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	pid := m.PID()
	f := m.Open(os.O_RDWR)
	data := harness.Random(7, 3<<20)
	writeAt(t, f, data, 1<<20)
	check(t, f.Close())
	umount := []string{"umount", m.Point}
	if os.Geteuid() != 0 {
		umount = []string{"fusermount3", "-u", m.Point}
	}
	// Another test's program has this one's files until it runs.
	b.Eventually("unmounted", func() bool { return b.Try(umount[0], umount[1:]...).Code == 0 })
	b.AwaitEnd(pid)
	b.CheckGone(m.Point)
	b.OK("check", "disk.vhd")
	if !bytes.Equal(readAt(t, b.Mount("disk.vhd").Open(os.O_RDONLY), len(data), 1<<20), data) {
		t.Error("what was written is not there")
	}
}

func TestUnmountByAnyNameOfTheMount(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	check(t, os.Symlink(m.Point, b.Path("link")))
	check(t, os.Symlink("disk.vhd", b.Path("image-link")))
	for _, name := range []string{"disk.vhd", b.Path("disk.vhd"), "disk.vhd.mnt", "./disk.vhd.mnt/", "link", "image-link", "disk.vhd.mnt/disk.raw"} {
		r := b.Unmount(name)
		if r.Code != 0 {
			t.Errorf("unmount %s: %+v", name, r)
			continue
		}
		b.CheckGone(m.Point)
		b.Mount("disk.vhd")
	}
}

func TestUnmountOfWhatIsNotMounted(t *testing.T) {
	t.Parallel()
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	b.Mkdir("mnt")
	for _, name := range []string{"disk.vhd", "mnt", "none"} {
		b.Fails([]string{"unmount", name}, name, "not mounted")
	}
	b.Fails([]string{"unmount", "/proc"}, "/proc", "not by vhdmount")
}

// TestAWorkingDirectoryHoldsTheDiskToo, as with any file system.
func TestAWorkingDirectoryHoldsTheDiskToo(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	holder := exec.Command("cat")
	holder.Dir = m.Point
	stdin, err := holder.StdinPipe()
	check(t, err)
	check(t, holder.Start())
	b.Fails([]string{"unmount", m.Point}, "cat (pid "+strconv.Itoa(holder.Process.Pid)+")")
	check(t, stdin.Close())
	check(t, holder.Wait())
	m.Unmount()
}

// TestAMappedDiskHoldsIt, although its descriptor is closed, and what is
// written to the map is in the image in the end.
func TestAMappedDiskHoldsIt(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	f := m.Open(os.O_RDWR)
	page, err := unix.Mmap(int(f.Fd()), 1<<20, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(t, err)
	check(t, f.Close())
	copy(page[4090:], "across a page")
	b.Fails([]string{"unmount", m.Point}, "in use", "pid "+strconv.Itoa(os.Getpid()))
	check(t, unix.Munmap(page)) // without msync
	m.Unmount()
	f = b.Mount("disk.vhd").Open(os.O_RDONLY)
	if got := readAt(t, f, 13, 1<<20+4090); string(got) != "across a page" {
		t.Errorf("read %q", got)
	}
}
