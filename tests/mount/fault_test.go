package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// onFaulty is a mounted image, backing.vhd in a faulty file system, with data in
// its block 0.
func onFaulty(t *testing.T, flags ...string) (*harness.Box, *harness.Mount, *harness.Faulty) {
	t.Helper()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "backing.vhd")
	n := b.MountFaulty("backing.vhd")
	m := b.Mount(n.Image, flags...)
	f := m.Open(os.O_RDWR)
	writeAt(t, f, harness.Random(1, 1<<20), 0)
	check(t, f.Sync())
	check(t, f.Close())
	return b, m, n
}

// wantAlive checks that the server runs, and logged word.
func wantAlive(t *testing.T, b *harness.Box, m *harness.Mount, word string) {
	t.Helper()
	if list := b.List(); len(list) != 1 || list[0].State != "running" {
		t.Errorf("the list: %+v; want it running", list)
	}
	if log := m.Log(); !strings.Contains(log, word) {
		t.Errorf("the log hasn't %q: %s", word, log)
	}
}

func TestAReadErrorIsTheClientsEIOAndTheMountLivesOn(t *testing.T) {
	t.Parallel()
	b, m, n := onFaulty(t)
	f := m.Open(os.O_RDONLY | unix.O_DIRECT)
	buf := aligned(make([]byte, 64<<10))
	n.Reads.Fail(unix.EIO)
	for range 3 {
		_, err := f.ReadAt(buf, 128<<10)
		wantErrno(t, "a read", err, unix.EIO)
	}
	if _, err := f.ReadAt(buf, 30<<20); err != nil {
		t.Errorf("a read of a hole, which no file holds: %v", err)
	}
	wantAlive(t, b, m, "input/output error")
	n.Reads.Work()
	if _, err := f.ReadAt(buf, 128<<10); err != nil || !bytes.Equal(buf, harness.Random(1, 1<<20)[128<<10:][:len(buf)]) {
		t.Errorf("a read when the error is gone: %v", err)
	}
	check(t, f.Close())
	m.Unmount()
	b.OK("check", "backing.vhd")
}

func TestAWriteErrorIsTheClientsEIOAndTheMountLivesOn(t *testing.T) {
	t.Parallel()
	b, m, n := onFaulty(t)
	f := m.Open(os.O_RDWR)
	data := harness.Random(2, 64<<10)
	n.Writes.Fail(unix.EIO)
	for _, off := range []int64{0, 20 << 20} { // in place, and allocating
		_, err := f.WriteAt(data, off)
		wantErrno(t, "a write", err, unix.EIO)
	}
	wantAlive(t, b, m, "input/output error")
	n.Writes.Work()
	for _, off := range []int64{0, 20 << 20} {
		writeAt(t, f, data, off)
	}
	check(t, f.Sync())
	check(t, f.Close())
	m.Unmount()
	b.OK("check", "backing.vhd")
	f = b.Mount("backing.vhd").Open(os.O_RDONLY)
	for _, off := range []int64{0, 20 << 20} {
		if !bytes.Equal(readAt(t, f, len(data), off), data) {
			t.Errorf("what was written at %d when the error was gone is not there", off)
		}
	}
}

// TestAFailedSyncIsFinal: the kernel may have dropped what it was to write, so
// that no later sync can promise anything.
func TestAFailedSyncIsFinal(t *testing.T) {
	t.Parallel()
	b, m, n := onFaulty(t)
	f := m.Open(os.O_RDWR)
	writeAt(t, f, harness.Random(3, 4096), 0)
	n.Syncs.Fail(unix.EIO)
	wantErrno(t, "fsync", f.Sync(), unix.EIO)
	n.Syncs.Work()
	if err := f.Sync(); err == nil {
		t.Error("the next fsync succeeds")
	}
	if _, err := f.WriteAt([]byte{1}, 0); !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EIO) {
		t.Errorf("a write after it: %v; want EROFS or EIO", err)
	}
	readAt(t, f, 1<<20, 0)
	list := b.List()
	if len(list) != 1 || list[0].State == "running" || list[0].Error == "" {
		t.Errorf("the list: %+v; want the error", list)
	}
	check(t, f.Close())
	line := b.Fails([]string{"unmount", m.Point}, m.Point, "input/output error", "--lazy")
	if len(b.Mounts()) != 2 {
		t.Errorf("it is no longer mounted, although that was refused: %s", line)
	}
	pid := m.PID()
	if r := b.Run("unmount", "--lazy", m.Point); !strings.Contains(r.Stderr, "input/output error") {
		t.Errorf("unmount --lazy: %+v; want the error once more", r)
	}
	b.AwaitEnd(pid)
	b.CheckGone(m.Point)
	b.OK("check", "backing.vhd")
}

// TestNoSpaceBelowIsNoSpaceAbove, on file systems of 8 MiB: what was
// acknowledged stays, the mount lives on, and goes on when there is room.
func TestNoSpaceBelowIsNoSpaceAbove(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		for _, image := range []string{"dynamic", "differencing"} {
			t.Run(kind+"/"+image, func(t *testing.T) {
				t.Parallel()
				harness.Fuse(t)
				harness.Root(t)
				b := harness.New(t)
				small := smallFileSystem(t, b, kind)
				makeImage(b, image, "64M", "small/disk.vhd")
				b.Write("small/ballast", make([]byte, 1<<20))
				m := b.Mount("small/disk.vhd")
				f := m.Open(os.O_RDWR)
				written := fillUp(t, f)
				wantAlive(t, b, m, "no space left")
				check(t, os.Remove(filepath.Join(small, "ballast")))
				data := harness.Random(99, 100<<10)
				writeAt(t, f, data, written) // there is room again
				check(t, f.Sync())
				check(t, f.Close())
				m.Unmount()
				b.OK("check", "small/disk.vhd")
				f = b.Mount("small/disk.vhd").Open(os.O_RDONLY)
				for off := int64(0); off < written; off += piece {
					if !bytes.Equal(readAt(t, f, piece, off), harness.Random(uint64(off/piece), piece)) {
						t.Fatalf("what was written at %d is not there", off)
					}
				}
				if !bytes.Equal(readAt(t, f, len(data), written), data) {
					t.Error("what was written when there was room again is not there")
				}
			})
		}
	}
}

// piece is how much fillUp writes at a time.
const piece = 64 << 10

// fillUp writes to the disk until there is no space below, and returns how
// much was acknowledged.
func fillUp(t *testing.T, f *os.File) int64 {
	t.Helper()
	for off := int64(0); off < 32<<20; off += piece {
		if _, err := f.WriteAt(harness.Random(uint64(off/piece), piece), off); err != nil {
			wantErrno(t, "a write", err, unix.ENOSPC)
			if off < 2<<20 {
				t.Errorf("the first %d bytes found no space", off)
			}
			return off
		}
	}
	t.Fatal("32 MiB found space in 8 MiB")
	return 0
}

// smallFileSystem mounts one of 8 MiB at "small".
func smallFileSystem(t *testing.T, b *harness.Box, kind string) string {
	t.Helper()
	if kind != "tmpfs" {
		return b.NewFileSystem("small", kind, 8<<20).Dir
	}
	dir := b.Mkdir("small")
	b.Tool("mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", dir)
	return dir
}

// TestALimitInsideASectorTearsNone: the kernel writes up to the byte at which
// the limit on the size of files is, here of the server from its start.
func TestALimitInsideASectorTearsNone(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	harness.Tools(t, "prlimit")
	b := harness.New(t)
	b.OK("create", "--type", "fixed", "8M", "disk.vhd")
	before, after := harness.Random(1, 4096), harness.Random(2, 4096)
	const at, limit = 9760 * 512, 9765*512 + 321
	m := b.Mount("disk.vhd")
	f := m.Open(os.O_RDWR)
	writeAt(t, f, before, at)
	check(t, f.Close())
	m.Unmount()

	disk := strings.TrimSpace(b.Tool("prlimit", fmt.Sprintf("--fsize=%d", limit), harness.Binary(t), "mount", "disk.vhd", m.Point))
	f = b.Open(disk, os.O_RDWR|unix.O_DIRECT)
	data := aligned(after)
	_, err := f.WriteAt(data, at)
	wantErrno(t, "a write across the limit", err, unix.ENOSPC)
	check(t, f.Close())
	f = b.Open(disk, os.O_RDONLY|unix.O_DIRECT)
	got := readAt(t, f, 4096, at)
	check(t, f.Close())
	for s := 0; s < 4096; s += 512 {
		if is := got[s : s+512]; !bytes.Equal(is, before[s:s+512]) && !bytes.Equal(is, after[s:s+512]) {
			t.Errorf("sector %d is neither what it was nor what was written", (at+s)/512)
		}
	}
	m.Unmount()
}
