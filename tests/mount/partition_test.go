package mount

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

const (
	mbrTable = "label: dos\nstart=2048,size=40960,type=83\nstart=43008,size=20480,type=c\nstart=63488,size=61440,type=5\n" +
		"start=65536,size=20480,type=83\nstart=88064,size=30720,type=83\n"
	gptTable = "label: gpt\nstart=2048,size=40960,name=boot\nstart=43008,size=20480,name=root\nstart=65536,size=20480\n"
)

// partition writes a table to the mounted disk as sfdisk does.
func partition(t *testing.T, b *harness.Box, m *harness.Mount, table string) {
	t.Helper()
	harness.Tools(t, "sfdisk")
	b.Write("table", []byte(table))
	b.Tool("sh", "-c", "sfdisk -q "+m.Disk+" <table")
}

// parts is the partitions that the mount shows, by name, with their sizes.
func parts(t *testing.T, m *harness.Mount) map[string]int64 {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(m.Point, "p*.raw"))
	check(t, err)
	out := map[string]int64{}
	for _, name := range names {
		info, err := os.Stat(name)
		check(t, err)
		out[filepath.Base(name)] = info.Size() / 512
	}
	return out
}

func wantParts(t *testing.T, m *harness.Mount, want map[string]int64) {
	t.Helper()
	got := parts(t, m)
	if len(got) != len(want) {
		t.Errorf("partitions %v, want %v", got, want)
	}
	for name, sectors := range want {
		if got[name] != sectors {
			t.Errorf("%s has %d sectors, want %d", name, got[name], sectors)
		}
	}
}

// TestPartitionsAreFiles: of a table written to the disk while it is mounted,
// and of the same after another mount.
func TestPartitionsAreFiles(t *testing.T) {
	mbr := map[string]int64{"p1.raw": 40960, "p2.raw": 20480, "p5.raw": 20480, "p6.raw": 30720}
	gpt := map[string]int64{"p1.raw": 40960, "p2.raw": 20480, "p3.raw": 20480}
	for name, c := range map[string]struct {
		table string
		want  map[string]int64
		other string
		then  map[string]int64
	}{"MBR": {mbrTable, mbr, gptTable, gpt}, "GPT": {gptTable, gpt, mbrTable, mbr}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, m := mounted(t, "64M")
			wantParts(t, m, nil)
			partition(t, b, m, c.table)
			wantParts(t, m, c.want)
			m.Unmount()
			m = b.Mount("disk.vhd")
			wantParts(t, m, c.want)
			b.Tool("sfdisk", "-q", "--delete", m.Disk, "2")
			without := maps.Clone(c.want)
			delete(without, "p2.raw")
			wantParts(t, m, without)
			b.Tool("wipefs", "-q", "-f", "-a", m.Disk)
			wantParts(t, m, nil)
			partition(t, b, m, c.other)
			wantParts(t, m, c.then)
		})
	}
}

// starts has the first byte of each partition of mbrTable.
var starts = map[string]int64{"1": 2048 * 512, "2": 43008 * 512, "5": 65536 * 512, "6": 88064 * 512}

// TestAPartitionIsItsPartOfTheDisk: the same bytes, whichever of the files is
// written and synced, and whichever is read, in whose pages there is something
// older.
func TestAPartitionIsItsPartOfTheDisk(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	partition(t, b, m, mbrTable)
	disk := m.Open(os.O_RDWR)
	for name, start := range starts {
		part := b.Open(m.Part(name), os.O_RDWR)
		for round := range 5 {
			data := harness.Random(uint64(round)*100+uint64(name[0]), 40000)
			at := int64(round) * 30001
			writeAt(t, part, data, at)
			check(t, part.Sync())
			if !bytes.Equal(readAt(t, disk, len(data), start+at), data) {
				t.Fatalf("round %d: the disk doesn't show what p%s.raw was written", round, name)
			}
			copy(data[20000:], "through the disk")
			writeAt(t, disk, data, start+at)
			check(t, disk.Sync())
			if !bytes.Equal(readAt(t, part, len(data), at), data) {
				t.Fatalf("round %d: p%s.raw doesn't show what the disk was written", round, name)
			}
		}
	}
}

// TestAPartitionFollowsTheDiskWithoutSync: after close, at the next open, and
// to a program that has it open all the time, soon.
func TestAPartitionFollowsTheDiskWithoutSync(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	partition(t, b, m, mbrTable)
	open := b.Open(m.Part("5"), os.O_RDONLY)
	for round := range 5 {
		old := readAt(t, open, 40000, 0)
		data := harness.Random(uint64(round), 40000)
		disk := m.Open(os.O_RDWR)
		writeAt(t, disk, data, starts["5"])
		reader := b.Open(m.Part("5"), os.O_RDONLY)
		if !bytes.Equal(readAt(t, reader, len(data), 0), data) {
			t.Errorf("round %d: opened after the write, it has something else", round)
		}
		b.Eventually("a reader sees what was written", func() bool { return bytes.Equal(readAt(t, open, len(data), 0), data) })
		writeAt(t, disk, old, starts["5"])
		check(t, disk.Close())
		if !bytes.Equal(readAt(t, open, len(data), 0), old) {
			t.Errorf("round %d: after the writer's close it has something else", round)
		}
		check(t, reader.Close())
	}
}

func TestAPartitionEndsWhereItEnds(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	partition(t, b, m, gptTable)
	part := b.Open(m.Part("2"), os.O_RDWR)
	const size = 20480 * 512
	if n, err := unix.Pwrite(int(part.Fd()), make([]byte, 4096), size-512); n != 512 || err != nil {
		t.Errorf("a write across the end: %d, %v; want 512", n, err)
	}
	_, err := unix.Pwrite(int(part.Fd()), []byte{1}, size)
	wantErrno(t, "a write past the end", err, unix.ENOSPC)
	wantErrno(t, "truncate", os.Truncate(m.Part("2"), size+512), unix.EPERM)
	if got := readAt(t, m.Open(os.O_RDONLY), 512, (43008+20480)*512); !bytes.Equal(got, make([]byte, 512)) {
		t.Error("what follows the partition was changed")
	}
}

// TestFileSystemToolsWorkOnAPartition: mkfs.ext4, debugfs and e2fsck, before
// and after another mount; on the disk as a whole too.
func TestFileSystemToolsWorkOnAPartition(t *testing.T) {
	for _, name := range []string{"p1.raw", "disk.raw"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.Tools(t, "mkfs.ext4", "e2fsck", "debugfs", "sfdisk")
			b, m := mounted(t, "64M")
			if name != "disk.raw" {
				partition(t, b, m, mbrTable)
			}
			target := filepath.Join(m.Point, name)
			b.Tool("mkfs.ext4", "-q", target)
			b.Write("note", harness.Random(9, 3<<20))
			b.Tool("debugfs", "-w", "-R", "write note note", target)
			b.Tool("e2fsck", "-f", "-n", target)
			m.Unmount()
			b.OK("check", "disk.vhd")
			b.Mount("disk.vhd", "-r")
			b.Tool("e2fsck", "-f", "-n", target)
			b.Tool("debugfs", "-R", "dump note back", target)
			b.Tool("cmp", "note", "back")
		})
	}
}

// TestFuse2fsMountsAPartition, and the file system is clean afterwards.
func TestFuse2fsMountsAPartition(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	harness.Tools(t, "sfdisk", "mkfs.ext4", "e2fsck", "fuse2fs", "fusermount3")
	partition(t, b, m, gptTable)
	b.Tool("mkfs.ext4", "-q", m.Part("1"))
	files := b.Mkdir("files")
	b.Tool("fuse2fs", "-o", "fakeroot", m.Part("1"), files)
	check(t, os.WriteFile(filepath.Join(files, "note"), harness.Random(1, 1<<20), 0o644))
	line := b.Fails([]string{"unmount", m.Point}, "in use", "fuse2fs (pid ")
	if !strings.Contains(line, "--lazy") {
		t.Errorf("what to do is not said: %s", line)
	}
	b.Tool("fusermount3", "-u", files)
	// fusermount3 returns before fuse2fs has written all and gone.
	b.Eventually("unmounted, once fuse2fs has ended", func() bool { return b.Run("unmount", m.Point).Code == 0 })
	m = b.Mount("disk.vhd")
	b.Tool("e2fsck", "-f", "-n", m.Part("1"))
	b.Tool("debugfs", "-R", "dump note back", m.Part("1"))
	if !bytes.Equal(b.Read("back"), harness.Random(1, 1<<20)) {
		t.Error("the file isn't what was written")
	}
}
