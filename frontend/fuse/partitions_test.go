package fuse

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/partition"
)

// table is a partition table that tests change.
type table struct {
	mu    sync.Mutex
	parts []partition.Partition
	err   error
	reads int
}

func (t *table) read(blockdev.Device) ([]partition.Partition, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reads++
	return t.parts, t.err
}

func (t *table) set(parts ...partition.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parts = parts
}

func part(number int, off, n int64) partition.Partition {
	return partition.Partition{Number: number, Offset: off, Length: n}
}

// write changes the disk, so that the table may have changed too.
func touchDisk(t *testing.T, c *client) {
	t.Helper()
	if _, status := c.write(diskNode, 0, []byte("new table")); !status.Ok() {
		t.Fatal(status)
	}
}

func TestPartitionsAreRangesOfTheDisk(t *testing.T) {
	tab := &table{}
	tab.set(part(1, 1<<20, 1<<20), part(5, 3<<20, 512<<10))
	c := newClient(t, blockdev.NewMemory(testSize), Options{Partitions: tab.read}, false)
	if got, want := c.list(), []string{".", "..", "disk.raw", "info.json", "p1.raw", "p5.raw"}; !slices.Equal(got, want) {
		t.Errorf("the directory has %v, want %v", got, want)
	}
	p5, status := c.lookup("p5.raw")
	wantStatus(t, "LOOKUP", status, fuse.OK)
	if p5.Attr.Size != 512<<10 || p5.EntryTimeout() != 0 {
		t.Errorf("p5.raw has %d bytes and is believed for %v", p5.Attr.Size, p5.EntryTimeout())
	}
	if n, status := c.write(p5.NodeId, 512<<10-3, []byte("hello")); n != 3 || !status.Ok() {
		t.Errorf("write across the partition's end: %d, %v", n, status)
	}
	if _, status := c.write(p5.NodeId, 512<<10, []byte("hello")); status != statusNoSpace {
		t.Errorf("write past the partition's end: %v", status)
	}
	if got, _ := c.read(diskNode, 3<<20+512<<10-3, 5); string(got) != "hel\x00\x00" {
		t.Errorf("the disk has %q there", got)
	}
	if got := c.getattr(p5.NodeId).Blocks; got != 128 {
		t.Errorf("p5.raw has %d blocks, want 128", got)
	}
}

func TestChangedTableShowsAtTheNextLook(t *testing.T) {
	tab := &table{}
	tab.set(part(1, 1<<20, 1<<20), part(2, 2<<20, 1<<20))
	c := newClient(t, blockdev.NewMemory(testSize), Options{Partitions: tab.read}, false)
	p1, _ := c.lookup("p1.raw")
	p2, _ := c.lookup("p2.raw")
	tab.set(part(1, 1<<20, 1<<20), part(2, 2<<20, 512<<10), part(3, 3<<20, 512<<10))
	if got, _ := c.lookup("p2.raw"); got.NodeId != p2.NodeId {
		t.Error("the table was read again though nothing was written")
	}
	touchDisk(t, c)
	if got, want := c.list()[4:], []string{"p1.raw", "p2.raw", "p3.raw"}; !slices.Equal(got, want) {
		t.Errorf("partitions %v, want %v", got, want)
	}
	if got, _ := c.lookup("p1.raw"); got.NodeId != p1.NodeId {
		t.Error("a partition that stayed is another file")
	}
	moved, _ := c.lookup("p2.raw")
	if moved.NodeId == p2.NodeId || moved.Size != 512<<10 {
		t.Errorf("a partition that changed is the same file of %d bytes", moved.Size)
	}
	if tab.reads != 2 {
		t.Errorf("the table was read %d times, want once and once more", tab.reads)
	}
}

func TestPartitionThatWentIsKeptWhileItIsOpen(t *testing.T) {
	tab := &table{}
	tab.set(part(1, 1<<20, 1<<20))
	c := newClient(t, blockdev.NewMemory(testSize), Options{Partitions: tab.read}, false)
	p1, _ := c.lookup("p1.raw")
	fh := c.mustOpen(p1.NodeId, syscall.O_RDWR)
	tab.set()
	touchDisk(t, c)
	_, status := c.lookup("p1.raw")
	wantStatus(t, "LOOKUP of what went", status, fuse.ENOENT)
	if n, status := c.write(p1.NodeId, 0, []byte("old")); n != 3 || !status.Ok() {
		t.Errorf("write by who has it open: %d, %v", n, status)
	}
	if got, _ := c.read(diskNode, 1<<20, 3); string(got) != "old" {
		t.Errorf("the disk has %q there", got)
	}
	c.release(p1.NodeId, fh)
	if c.files.node(p1.NodeId) == nil {
		t.Error("forgotten before the kernel said so")
	}
	call[none](c, opForget, p1.NodeId, fuse.ForgetIn{Nlookup: 1})
	if c.files.node(p1.NodeId) != nil {
		t.Error("kept after the kernel forgot it")
	}
}

func TestTableThatCannotBeReadKeepsThePartitions(t *testing.T) {
	tab := &table{}
	tab.set(part(1, 1<<20, 1<<20))
	lines := &logLines{}
	c := newClient(t, blockdev.NewMemory(testSize), Options{Partitions: tab.read, Log: logTo(lines)}, false)
	c.list()
	tab.err = errBroken
	touchDisk(t, c)
	if got := c.list()[4:]; !slices.Equal(got, []string{"p1.raw"}) {
		t.Errorf("partitions %v", got)
	}
	if len(lines.all()) != 1 {
		t.Errorf("log: %q", lines.all())
	}
	tab.err = nil
	tab.set()
	if got := c.list()[4:]; len(got) != 0 {
		t.Errorf("partitions %v once the table can be read", got)
	}
}

func TestPartitionOutsideTheDiskIsLeftOut(t *testing.T) {
	tab := &table{}
	tab.set(part(1, 1<<20, testSize), part(2, 1<<20, 1<<20))
	lines := &logLines{}
	c := newClient(t, blockdev.NewMemory(testSize), Options{Partitions: tab.read, Log: logTo(lines)}, false)
	if got := c.list()[4:]; !slices.Equal(got, []string{"p2.raw"}) {
		t.Errorf("partitions %v", got)
	}
	if got := strings.Join(lines.all(), ""); !strings.Contains(got, "number=1") {
		t.Errorf("the log does not name it: %q", got)
	}
}

// siblings is a client of a disk with two partitions, and their nodes.
func siblings(t *testing.T) (c *client, p1, p2 uint64) {
	t.Helper()
	tab := &table{}
	tab.set(part(1, 1<<20, 1<<20), part(2, 2<<20, 1<<20))
	c = newClient(t, blockdev.NewMemory(testSize), Options{Partitions: tab.read}, false)
	e1, _ := c.lookup("p1.raw")
	e2, _ := c.lookup("p2.raw")
	return c, e1.NodeId, e2.NodeId
}

func (c *client) keepsCache(node uint64, flags uint32) (keeps bool, fh uint64) {
	c.t.Helper()
	out, status := c.open(node, flags)
	if !status.Ok() {
		c.t.Fatal(status)
	}
	return out.OpenFlags&fuse.FOPEN_KEEP_CACHE != 0, out.Fh
}

func TestClosedSiblingsPagesAreDroppedAtItsNextOpening(t *testing.T) {
	for _, tt := range []struct {
		name string
		use  func(c *client, p1, p2 uint64) // between two openings of p1
		want bool                           // pages kept
	}{
		{"nothing happened", func(*client, uint64, uint64) {}, true},
		{"the disk was read", func(c *client, _, _ uint64) {
			c.release(diskNode, c.mustOpen(diskNode, syscall.O_RDONLY))
		}, true},
		{"the disk was written", func(c *client, _, _ uint64) {
			c.release(diskNode, c.mustOpen(diskNode, syscall.O_RDWR))
		}, false},
		{"the disk is being written", func(c *client, _, _ uint64) { c.mustOpen(diskNode, syscall.O_WRONLY) }, false},
		{"another partition was written", func(c *client, _, p2 uint64) {
			c.release(p2, c.mustOpen(p2, syscall.O_RDWR))
		}, true},
		{"it was written itself", func(c *client, p1, _ uint64) {
			c.release(p1, c.mustOpen(p1, syscall.O_RDWR))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, p1, p2 := siblings(t)
			c.release(p1, c.mustOpen(p1, syscall.O_RDONLY))
			tt.use(c, p1, p2)
			if keeps, _ := c.keepsCache(p1, syscall.O_RDONLY); keeps != tt.want {
				t.Errorf("pages kept: %v, want %v", keeps, tt.want)
			}
			if keeps, _ := c.keepsCache(p1, syscall.O_RDONLY); !keeps {
				t.Error("pages dropped once more")
			}
		})
	}
}

func TestSiblingThatClosesBesideAWriterIsStale(t *testing.T) {
	c, p1, _ := siblings(t)
	writer := c.mustOpen(diskNode, syscall.O_RDWR)
	_, fh := c.keepsCache(p1, syscall.O_RDONLY)
	c.release(p1, fh)
	c.release(diskNode, writer) // what it wrote in between nobody told p1's pages
	if keeps, _ := c.keepsCache(p1, syscall.O_RDONLY); keeps {
		t.Error("pages kept")
	}
}

func TestWriteDropsThePagesOfOpenSiblings(t *testing.T) {
	c, p1, p2 := siblings(t)
	c.mustOpen(diskNode, syscall.O_RDWR)
	c.mustOpen(p1, syscall.O_RDONLY)
	c.mustOpen(p2, syscall.O_RDONLY)
	if _, status := c.write(diskNode, 2<<20-100, make([]byte, 4096)); !status.Ok() {
		t.Fatal(status)
	}
	if _, _, status := call[none](c, opFsync, diskNode, fuse.FsyncIn{}); !status.Ok() {
		t.Fatal(status)
	}
	want := map[uint64]extent{p1: {1<<20 - 100, 1 << 20}, p2: {0, 3996}}
	if got := c.transport.dropped(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("dropped %v, want %v", got, want)
	}
	if _, status := c.write(p2, 512, make([]byte, 512)); !status.Ok() {
		t.Fatal(status)
	}
	_, _, status := call[none](c, opFlush, p2, fuse.FlushIn{})
	wantStatus(t, "FLUSH", status, fuse.OK)
	if got := c.transport.dropped()[diskNode]; got != (extent{2<<20 + 512, 2<<20 + 1024}) {
		t.Errorf("of the disk %v was dropped", got)
	}
}

func TestDiskAloneCostsNothing(t *testing.T) {
	c, p1, _ := siblings(t)
	c.release(p1, c.mustOpen(p1, syscall.O_RDONLY))
	c.mustOpen(diskNode, syscall.O_RDWR)
	c.transport.reasons = nil
	if _, status := c.write(diskNode, 1<<20, make([]byte, 4096)); !status.Ok() {
		t.Fatal(status)
	}
	call[none](c, opFlush, diskNode, fuse.FlushIn{})
	if got := c.transport.dropped(); len(got) != 0 || c.transport.reasons != nil {
		t.Errorf("dropped %v, waited for %v", got, c.transport.reasons)
	}
}

func TestWriteNeverWaitsForTheKernelToDropPages(t *testing.T) {
	c, p1, _ := siblings(t)
	c.mustOpen(p1, syscall.O_RDONLY)
	c.mustOpen(diskNode, syscall.O_RDWR)
	c.transport.hold = make(chan struct{})
	if _, status := c.write(diskNode, 1<<20, make([]byte, 4096)); !status.Ok() { // hangs if it waits
		t.Fatal(status)
	}
	close(c.transport.hold)
	if _, _, status := call[none](c, opFlush, diskNode, fuse.FlushIn{}); !status.Ok() {
		t.Fatal(status)
	}
	if got := c.transport.dropped(); got[p1] != (extent{0, 4096}) {
		t.Errorf("after close %v was dropped", got)
	}
}

func TestMountedPartitionsAndDiskShowTheSameBytes(t *testing.T) {
	const off, n = 1 << 20, 16 << 20
	tab := &table{}
	tab.set(part(1, off, n))
	s := attach(t, blockdev.NewMemory(32<<20), Options{Partitions: tab.read})
	disk, p1 := s.Path(), filepath.Join(filepath.Dir(s.Path()), "p1.raw")
	same := func(when string) {
		t.Helper()
		whole, err1 := os.ReadFile(disk)
		one, err2 := os.ReadFile(p1)
		if err1 != nil || err2 != nil || !bytes.Equal(whole[off:off+n], one) {
			t.Errorf("%s: disk.raw and p1.raw differ (%v, %v)", when, err1, err2)
		}
	}
	same("new") // and both are in the page cache
	tool(t, "mkfs.ext4", "-q", "-F", p1)
	same("after mkfs of p1.raw")
	tool(t, "e2fsck", "-fn", p1)
	tool(t, "dd", "if=/dev/urandom", "of="+disk, "bs=4k", "seek=300", "count=10", "conv=notrunc", "status=none")
	same("after dd to disk.raw")

	d, p := open(t, disk, os.O_RDWR), open(t, p1, os.O_RDWR)
	want, got := make([]byte, 4096), make([]byte, 4096)
	for i := range 200 { // both stay open: an fsync each
		for j := range want {
			want[j] = byte(i)
		}
		w, r, wo, ro := d, p, int64(off+8192), int64(8192)
		if i%2 == 1 {
			w, r, wo, ro = p, d, ro, wo
		}
		if _, err := w.WriteAt(want, wo); err != nil {
			t.Fatal(err)
		}
		if err := w.Sync(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadAt(got, ro); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: read %d, want %d, %v", i, got[0], want[0], err)
		}
	}
}

func TestMountedLoopSeesWhatPartitionFilesWrote(t *testing.T) {
	needRoot(t)
	const off, n = 1 << 20, 16 << 20
	tab := &table{}
	tab.set(part(1, off, n))
	s := attach(t, blockdev.NewMemory(32<<20), Options{Partitions: tab.read})
	p1 := filepath.Join(filepath.Dir(s.Path()), "p1.raw")
	if _, err := os.ReadFile(p1); err != nil { // its zeros are in the page cache
		t.Fatal(err)
	}
	loop := strings.TrimSpace(tool(t, "losetup", "--find", "--show", "--offset", fmt.Sprint(off), "--sizelimit", fmt.Sprint(n), s.Path()))
	tool(t, "mkfs.ext4", "-q", loop)
	tool(t, "losetup", "-d", loop)
	tool(t, "e2fsck", "-fn", p1)
}

func TestMountedWritersOfTheSamePagesDoNotHang(t *testing.T) {
	const off, n = 64 << 10, 256 << 10
	tab := &table{}
	tab.set(part(1, off, n))
	s := attach(t, blockdev.NewMemory(1<<20), Options{Partitions: tab.read, Threads: 1})
	d, p := open(t, s.Path(), os.O_RDWR), open(t, filepath.Join(filepath.Dir(s.Path()), "p1.raw"), os.O_RDWR)
	var clients sync.WaitGroup
	for i, w := range []struct {
		f   *os.File
		off int64
	}{{d, off}, {p, 0}, {d, off}, {p, 0}} {
		clients.Go(func() {
			data := bytes.Repeat([]byte{byte(i)}, n)
			for j := range 50 {
				if _, err := w.f.WriteAt(data, w.off); err != nil {
					t.Error(err)
				}
				if _, err := w.f.ReadAt(data, w.off); err != nil {
					t.Error(err)
				}
				if j%10 == 0 {
					if err := w.f.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 5 { // and one that maps, in its own process
		tool(t, "xfs_io", "-c", "mmap -rw 0 256k", "-c", "mwrite 0 256k", "-c", "msync -s", p.Name())
	}
	clients.Wait()
}

func TestMountedTableChangeShows(t *testing.T) {
	tab := &table{}
	s := attach(t, blockdev.NewMemory(4<<20), Options{Partitions: tab.read})
	p1 := filepath.Join(filepath.Dir(s.Path()), "p1.raw")
	if _, err := os.Stat(p1); !os.IsNotExist(err) {
		t.Error("p1.raw of a disk without a table:", err)
	}
	for _, size := range []int64{1 << 20, 2 << 20} {
		tab.set(part(1, 1<<20, size))
		if err := os.WriteFile(s.Path(), []byte("table"), 0); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(p1); err != nil || info.Size() != size {
			t.Errorf("p1.raw: %v, %v, want %d bytes", info, err, size)
		}
	}
}
