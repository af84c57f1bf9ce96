package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

const testSize = 4<<20 + 1536 // no multiple of a page

func TestInitNegotiatesWhatThroughputNeeds(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	in := fuse.InitIn{Major: 7, Minor: 45, Flags: 1<<32 - 1, Flags2: 1<<32 - 1}
	out, _, status := call[fuse.InitOut](c, opInit, 0, in)
	wantStatus(t, "INIT", status, fuse.OK)
	if out.MaxWrite != 1<<20 || out.MaxPages != 256 || out.MaxBackground != 256 || out.CongestionThreshold != 192 {
		t.Errorf("max_write %d, max_pages %d, max_background %d, congestion %d", out.MaxWrite, out.MaxPages, out.MaxBackground, out.CongestionThreshold)
	}
	flags := out.Flags64()
	for name, want := range map[uint64]bool{
		fuse.CAP_ASYNC_DIO: true, fuse.CAP_MAX_PAGES: true, fuse.CAP_EXPLICIT_INVAL_DATA: true, fuse.CAP_ABORT_ERROR: true,
		fuse.CAP_WRITEBACK_CACHE: false, fuse.CAP_AUTO_INVAL_DATA: false, fuse.CAP_ATOMIC_O_TRUNC: false,
		fuse.CAP_READDIRPLUS: false, fuse.CAP_NO_OPEN_SUPPORT: false, fuse.CAP_OVER_IO_URING: false,
	} {
		if got := flags&name != 0; got != want {
			t.Errorf("capability %#x: %v, want %v", name, got, want)
		}
	}
}

func TestAttributes(t *testing.T) {
	dev := blockdev.NewMemory(testSize)
	if _, err := dev.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, dev, Options{UID: new(uint32(12)), GID: new(uint32(34)), Umask: new(fs.FileMode(0o027))}, false)
	disk, status := c.lookup(diskName)
	wantStatus(t, "LOOKUP", status, fuse.OK)
	a := disk.Attr
	if a.Mode != syscall.S_IFREG|0o640 || a.Uid != 12 || a.Gid != 34 || a.Size != testSize || a.Blksize != 4096 || a.Nlink != 1 {
		t.Errorf("disk.raw: mode %o, owner %d:%d, size %d, block size %d, links %d", a.Mode, a.Uid, a.Gid, a.Size, a.Blksize, a.Nlink)
	}
	if want := uint64(dev.Allocated() / 512); a.Blocks != want {
		t.Errorf("disk.raw has %d blocks, want %d", a.Blocks, want)
	}
	if disk.EntryTimeout() != fixedFor || disk.AttrTimeout() != 0 {
		t.Errorf("disk.raw: name good for %v, attributes for %v", disk.EntryTimeout(), disk.AttrTimeout())
	}
	root := c.getattr(rootNode)
	if root.Mode != syscall.S_IFDIR|0o550 || root.Timeout() != fixedFor {
		t.Errorf("root: mode %o for %v", root.Mode, root.Timeout())
	}
	if info := c.getattr(infoNode); info.Mode != syscall.S_IFREG|0o440 {
		t.Errorf("info.json: mode %o", info.Mode)
	}
}

func TestOwners(t *testing.T) {
	if got := orOwn(new(uint32(0)), 1000); got != 0 {
		t.Errorf("root, asked for by user 1000, is %d", got)
	}
	own := [2]uint32{uint32(os.Geteuid()), uint32(os.Getegid())}
	for _, tt := range []struct {
		name string
		o    Options
		want [2]uint32
	}{
		{"the process's own by default", Options{}, own},
		{"asked for", Options{UID: new(uint32(12)), GID: new(uint32(34))}, [2]uint32{12, 34}},
		{"root, asked for", Options{UID: new(uint32(0)), GID: new(uint32(0))}, [2]uint32{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, blockdev.NewMemory(testSize), tt.o, false)
			if a := c.getattr(diskNode); a.Uid != tt.want[0] || a.Gid != tt.want[1] {
				t.Errorf("owner %d:%d, want %d:%d", a.Uid, a.Gid, tt.want[0], tt.want[1])
			}
		})
	}
}

func TestBlocksFollowAllocation(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	if got := c.getattr(diskNode).Blocks; got != 0 {
		t.Errorf("%d blocks of an empty disk", got)
	}
	if _, status := c.write(diskNode, 0, []byte("x")); !status.Ok() {
		t.Fatal(status)
	}
	if got := c.getattr(diskNode).Blocks; got != 128 {
		t.Errorf("%d blocks after a write, want 128", got)
	}
}

func TestModes(t *testing.T) {
	for _, tt := range []struct {
		name      string
		o         Options
		file, dir fs.FileMode
	}{
		{"owner alone by default", Options{}, 0o600, 0o500},
		{"umask", Options{Umask: new(fs.FileMode(0o022))}, 0o644, 0o555},
		{"a umask that takes nothing", Options{Umask: new(fs.FileMode(0))}, 0o666, 0o555},
		{"allow_other lets all read", Options{AllowOther: true}, 0o644, 0o555},
		{"allow_other, read-only", Options{AllowOther: true, ReadOnly: true}, 0o444, 0o555},
		{"allow_other with a umask", Options{AllowOther: true, Umask: new(fs.FileMode(0o027))}, 0o640, 0o550},
		{"allow_other with a umask that takes nothing", Options{AllowOther: true, Umask: new(fs.FileMode(0))}, 0o666, 0o555},
		{"a umask, read-only", Options{Umask: new(fs.FileMode(0)), ReadOnly: true}, 0o444, 0o555},
		{"allow_root is still the owner's", Options{AllowRoot: true}, 0o600, 0o500},
		{"read-only", Options{ReadOnly: true}, 0o400, 0o500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file, dir := modes(&tt.o)
			if fs.FileMode(file) != tt.file || fs.FileMode(dir) != tt.dir {
				t.Errorf("%o and %o, want %o and %o", file, dir, tt.file, tt.dir)
			}
		})
	}
}

func TestReadAndWriteActAsABlockDevice(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	ten := bytes.Repeat([]byte{7}, 10)
	for _, tt := range []struct {
		name   string
		off    int
		n      int
		status fuse.Status
	}{
		{"inside", 5, 10, fuse.OK},
		{"up to the end", testSize - 10, 10, fuse.OK},
		{"across the end", testSize - 3, 3, fuse.OK},
		{"at the end", testSize, 0, statusNoSpace},
		{"far past the end", testSize + 1<<40, 0, statusNoSpace},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, status := c.write(diskNode, tt.off, ten)
			wantStatus(t, "WRITE", status, tt.status)
			if status.Ok() && n != tt.n {
				t.Errorf("%d bytes written, want %d", n, tt.n)
			}
			got, status := c.read(diskNode, tt.off, 10)
			wantStatus(t, "READ", status, fuse.OK)
			if !bytes.Equal(got, ten[:tt.n]) {
				t.Errorf("read %v, want %d of %v", got, tt.n, ten)
			}
		})
	}
	if n, status := c.write(diskNode, testSize, nil); n != 0 || !status.Ok() {
		t.Errorf("writing nothing at the end: %d, %v", n, status)
	}
}

// TestDirectWriteAcrossTheEnd: the kernel takes a short answer to a direct
// write for an I/O error.
func TestDirectWriteAcrossTheEnd(t *testing.T) {
	dev := &faulty{Device: blockdev.NewMemory(testSize)}
	c := newClient(t, dev, Options{}, false)
	write := func(off int, n, flags, writeFlags uint32) (uint32, fuse.Status) {
		t.Helper()
		in := fuse.WriteIn{Offset: uint64(off), Size: n, Flags: flags, WriteFlags: writeFlags}
		out, _, status := call[fuse.WriteOut](c, opWrite, diskNode, in, bytes.Repeat([]byte{7}, int(n))...)
		return out.Size, status
	}
	_, status := write(testSize-4096, 8192, syscall.O_WRONLY|syscall.O_DIRECT, 0)
	wantStatus(t, "across the end", status, statusNoSpace)
	if got, _ := c.read(diskNode, testSize-4096, 4096); !bytes.Equal(got, bytes.Repeat([]byte{7}, 4096)) {
		t.Error("the part that fits was not written")
	}
	if n, status := write(testSize-4096, 4096, syscall.O_DIRECT, 0); n != 4096 || !status.Ok() {
		t.Errorf("up to the end: %d, %v", n, status)
	}
	if n, status := write(testSize-4096, 8192, syscall.O_DIRECT, fuse.WRITE_CACHE); n != 4096 || !status.Ok() {
		t.Errorf("pages of the cache, by way of a file open for direct writes: %d, %v", n, status)
	}
	dev.write.Store(&errBroken)
	_, status = write(testSize-4096, 8192, syscall.O_DIRECT, 0)
	wantStatus(t, "a part that fits and fails", status, fuse.EIO)
}

func TestReadFillsTheReplyInPlace(t *testing.T) {
	dev := &pointerDevice{Memory: blockdev.NewMemory(testSize)}
	c := newClient(t, dev, Options{}, false)
	if data, status := c.read(diskNode, 0, 1<<20); !status.Ok() || len(data) != 1<<20 {
		t.Fatal(len(data), status)
	}
	if want := &c.buffers.out[replyHeader]; dev.at != want {
		t.Error("the device did not read into the reply")
	}
}

// pointerDevice remembers where it was asked to read to.
type pointerDevice struct {
	*blockdev.Memory
	at *byte
}

func (d *pointerDevice) ReadAtNowait(p []byte, off int64) (int, error) {
	d.at = &p[0]
	return d.Memory.ReadAtNowait(p, off)
}

func TestDeviceErrors(t *testing.T) {
	for _, tt := range []struct {
		err        error
		want, sync fuse.Status // sync: of fsync
	}{
		{errBroken, fuse.EIO, fuse.EIO},
		{fmt.Errorf("block 7: %w", blockdev.ErrNoSpace), statusNoSpace, statusNoSpace},
		{blockdev.ErrClosed, fuse.ENODEV, fuse.ENODEV},
		{&blockdev.RangeError{}, fuse.EINVAL, fuse.EIO},
		{context.Canceled, fuse.EINTR, fuse.EINTR},
		{context.DeadlineExceeded, statusTimedOut, statusTimedOut},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			dev := &faulty{Device: blockdev.NewMemory(testSize)}
			lines := &logLines{}
			c := newClient(t, dev, Options{Log: logTo(lines)}, false)
			dev.read.Store(&tt.err)
			dev.write.Store(&tt.err)
			dev.flush.Store(&tt.err)
			_, status := c.read(diskNode, 4096, 512)
			wantStatus(t, "READ", status, tt.want)
			_, status = c.write(diskNode, 4096, []byte("x"))
			wantStatus(t, "WRITE", status, tt.want)
			wantStatus(t, "FSYNC", c.fsync(diskNode), tt.sync)
			_, _, status = call[none](c, opFallocate, diskNode, fuse.FallocateIn{Length: 512, Mode: unix.FALLOC_FL_ZERO_RANGE})
			wantStatus(t, "FALLOCATE", status, tt.want)
			if got := len(lines.all()); tt.want != fuse.EINTR && got != 4 {
				t.Errorf("%d lines in the log, want one for each: %q", got, lines.all())
			}
			dev.read.Store(nil)
			_, status = c.read(diskNode, 4096, 512)
			wantStatus(t, "READ of the mended disk", status, fuse.OK)
		})
	}
}

func TestErrorLineNamesOperationAndPlace(t *testing.T) {
	dev := &faulty{Device: blockdev.NewMemory(testSize)}
	lines := &logLines{}
	c := newClient(t, dev, Options{Log: logTo(lines)}, false)
	dev.read.Store(&errBroken)
	c.read(diskNode, 8192, 512)
	got := strings.Join(lines.all(), "")
	for _, want := range []string{"op=read", "file=disk.raw", "offset=8192", "length=512", `error="the disk is broken"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}

func TestColdReadLetsAnotherThreadAnswer(t *testing.T) {
	cold := &faulty{Device: blockdev.NewMemory(testSize)} // no NowaitReader
	c := newClient(t, cold, Options{}, true)
	c.read(rootNode, 0, 512)
	if got := c.transport.reasons; !slices.Equal(got, []reason{forDevice}) {
		t.Errorf("a cold read hands over %v", got)
	}
	warm := newClient(t, blockdev.NewMemory(testSize), Options{}, true)
	warm.read(rootNode, 0, 512)
	warm.write(rootNode, 0, make([]byte, 512))
	if got := warm.transport.reasons; got != nil {
		t.Errorf("a read and a write of memory hand over %v", got)
	}
	warm.read(rootNode, 0, muchData)
	call[none](warm, opFsync, rootNode, fuse.FsyncIn{})
	if got := warm.transport.reasons; !slices.Equal(got, []reason{forCopy, forDevice}) {
		t.Errorf("a large read and an fsync hand over %v", got)
	}
}

func TestPanicIsEIOAndALine(t *testing.T) {
	lines := &logLines{}
	c := newClient(t, panicDevice{blockdev.NewMemory(testSize)}, Options{Log: logTo(lines)}, false)
	_, status := c.read(diskNode, 0, 512)
	wantStatus(t, "READ", status, fuse.EIO)
	if got := strings.Join(lines.all(), ""); !strings.Contains(got, "index out of range") || !strings.Contains(got, "panicDevice") {
		t.Errorf("the log has neither the panic nor its place: %q", got)
	}
	if attr := c.getattr(diskNode); attr.Size != testSize {
		t.Error("the file system does not go on")
	}
}

type panicDevice struct{ blockdev.Device }

func (panicDevice) ReadAt(p []byte, _ int64) (int, error) { return int(p[len(p)]), nil }

func TestMalformedRequestGetsAnAnswer(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	// A READ larger than was ever negotiated has no room in the reply.
	_, status := c.read(diskNode, 0, maxWrite+headerRoom+1)
	wantStatus(t, "READ", status, fuse.EIO)
	// A WRITE cut off within its fixed part.
	_, _, status = call[none](c, opWrite, diskNode, fuse.OpenIn{})
	wantStatus(t, "WRITE", status, fuse.EIO)
	_, _, status = call[none](c, 99, diskNode, fuse.InHeader{})
	wantStatus(t, "unknown", status, fuse.ENOSYS)
}

func TestFixedSize(t *testing.T) {
	const set = fuse.FATTR_SIZE
	for _, tt := range []struct {
		name string
		in   fuse.SetAttrInCommon
		want fuse.Status
	}{
		{"truncate to its size", fuse.SetAttrInCommon{Valid: set, Size: testSize}, fuse.OK},
		{"ftruncate to its size", fuse.SetAttrInCommon{Valid: set | fuse.FATTR_FH, Size: testSize}, fuse.OK},
		{"smaller", fuse.SetAttrInCommon{Valid: set, Size: 1}, fuse.EPERM},
		{"larger", fuse.SetAttrInCommon{Valid: set | fuse.FATTR_FH, Size: testSize + 1}, fuse.EPERM},
		{"to nothing", fuse.SetAttrInCommon{Valid: set}, fuse.EPERM},
		{"another mode", fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: 0o777}, fuse.EPERM},
		{"the same mode", fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: 0o600}, fuse.OK},
		{"another owner", fuse.SetAttrInCommon{Valid: fuse.FATTR_UID, Owner: fuse.Owner{Uid: 99}}, fuse.EPERM},
		{"another group", fuse.SetAttrInCommon{Valid: fuse.FATTR_GID, Owner: fuse.Owner{Gid: 99}}, fuse.EPERM},
		{"the same owner", fuse.SetAttrInCommon{Valid: fuse.FATTR_UID, Owner: fuse.Owner{Uid: uint32(os.Geteuid())}}, fuse.OK},
		{"times", fuse.SetAttrInCommon{Valid: fuse.FATTR_MTIME | fuse.FATTR_ATIME_NOW, Mtime: 5}, fuse.OK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
			out, _, status := call[fuse.AttrOut](c, opSetattr, diskNode, fuse.SetAttrIn{SetAttrInCommon: tt.in})
			wantStatus(t, "SETATTR", status, tt.want)
			if status.Ok() && out.Size != testSize {
				t.Errorf("the size is %d after", out.Size)
			}
		})
	}
}

func TestReadOnly(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{ReadOnly: true}, false)
	_, status := c.open(diskNode, syscall.O_RDWR)
	wantStatus(t, "OPEN for writing", status, fuse.EROFS)
	fh := c.mustOpen(diskNode, syscall.O_RDONLY)
	_, status = c.write(diskNode, 0, []byte("x"))
	wantStatus(t, "WRITE", status, fuse.EROFS)
	_, _, status = call[none](c, opFallocate, diskNode, fuse.FallocateIn{Fh: fh, Length: 512, Mode: unix.FALLOC_FL_ZERO_RANGE})
	wantStatus(t, "FALLOCATE", status, fuse.EROFS)
	_, _, status = call[fuse.AttrOut](c, opSetattr, diskNode, fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE, Size: 9}})
	wantStatus(t, "SETATTR", status, fuse.EROFS)
	if _, status = c.read(diskNode, 0, 512); !status.Ok() {
		t.Error("READ:", status)
	}
}

func TestNamesCannotBeChanged(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	name := append([]byte("x"), 0)
	_, _, status := call[none](c, opUnlink, rootNode, fuse.InHeader{}, append([]byte(diskName), 0)...)
	wantStatus(t, "UNLINK", status, fuse.EPERM)
	_, _, status = call[fuse.EntryOut](c, opMkdir, rootNode, fuse.MkdirIn{}, name...)
	wantStatus(t, "MKDIR", status, fuse.EPERM)
	_, _, status = call[none](c, opRename, rootNode, fuse.LinkIn{}, append(name, name...)...)
	wantStatus(t, "RENAME", status, fuse.EPERM)
	_, status = c.lookup("x")
	wantStatus(t, "LOOKUP of what is not there", status, fuse.ENOENT)
	_, _, status = call[fuse.GetXAttrOut](c, opGetxattr, diskNode, fuse.GetXAttrIn{}, append([]byte("security.capability"), 0)...)
	wantStatus(t, "GETXATTR", status, fuse.ENOSYS)
	_, _, status = call[none](c, opSetxattr, diskNode, fuse.SetXAttrIn{}, append([]byte("user.x"), 0)...)
	wantStatus(t, "SETXATTR", status, fuse.ENOSYS)
	_, _, status = call[fuse.IoctlOut](c, opIoctl, diskNode, fuse.IoctlIn{Cmd: unix.BLKGETSIZE64, OutSize: 8})
	wantStatus(t, "IOCTL", status, statusNotTTY)
}

func TestInfoIsMadeAtEachOpening(t *testing.T) {
	made := 0
	info := func() []byte { made++; return bytes.Repeat([]byte("x"), made*3) }
	c := newClient(t, blockdev.NewMemory(testSize), Options{Info: info}, false)
	first, status := c.open(infoNode, syscall.O_RDONLY)
	wantStatus(t, "OPEN", status, fuse.OK)
	if first.OpenFlags&fuse.FOPEN_DIRECT_IO == 0 {
		t.Error("the kernel would cut info.json at the size that it knew")
	}
	second := c.mustOpen(infoNode, syscall.O_RDONLY)
	for fh, want := range map[uint64]int{first.Fh: 3, second: 6} {
		_, data, status := call[none](c, opRead, infoNode, fuse.ReadIn{Fh: fh, Size: 4096})
		wantStatus(t, "READ", status, fuse.OK)
		out, _, _ := call[fuse.AttrOut](c, opGetattr, infoNode, fuse.GetAttrIn{Flags_: fuse.FUSE_GETATTR_FH, Fh_: fh})
		if len(data) != want || out.Size != uint64(want) {
			t.Errorf("%d bytes, size %d, want %d", len(data), out.Size, want)
		}
		_, data, _ = call[none](c, opRead, infoNode, fuse.ReadIn{Fh: fh, Offset: 2, Size: 4096})
		if len(data) != want-2 {
			t.Errorf("%d bytes from offset 2, want %d", len(data), want-2)
		}
	}
	_, status = c.open(infoNode, syscall.O_WRONLY)
	wantStatus(t, "OPEN for writing", status, fuse.EACCES)
}

func TestDefaultInfoDescribesTheDevice(t *testing.T) {
	got := string(deviceInfo(blockdev.NewMemory(testSize)))
	if want := fmt.Sprintf("{\n  \"size\": %d,\n  \"allocated\": 0\n}\n", testSize); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAllowRootKeepsOthersOut(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	c.files.deny, c.files.onlyUID = true, 1000
	for uid, want := range map[uint32]fuse.Status{0: fuse.OK, 1000: fuse.OK, 1001: fuse.EACCES} {
		c.caller.Uid = uid
		_, status := c.lookup(diskName)
		wantStatus(t, fmt.Sprintf("LOOKUP by %d", uid), status, want)
		_, status = c.open(diskNode, syscall.O_RDONLY)
		wantStatus(t, fmt.Sprintf("OPEN by %d", uid), status, want)
		_, _, status = call[fuse.AttrOut](c, opGetattr, diskNode, fuse.GetAttrIn{})
		wantStatus(t, fmt.Sprintf("GETATTR by %d", uid), status, want)
		_, _, status = call[fuse.OpenOut](c, opOpendir, rootNode, fuse.OpenIn{})
		wantStatus(t, fmt.Sprintf("OPENDIR by %d", uid), status, want)
		_, _, status = call[fuse.StatfsOut](c, opStatfs, rootNode, fuse.InHeader{})
		wantStatus(t, fmt.Sprintf("STATFS by %d", uid), status, want)
	}
}

func TestStatfs(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	if _, status := c.write(diskNode, 0, []byte("x")); !status.Ok() {
		t.Fatal(status)
	}
	out, _, status := call[fuse.StatfsOut](c, opStatfs, rootNode, fuse.InHeader{})
	wantStatus(t, "STATFS", status, fuse.OK)
	if out.Blocks*uint64(out.Frsize) != testSize || out.Bfree*uint64(out.Frsize) != testSize-64<<10 {
		t.Errorf("%d blocks, %d free, of %d bytes", out.Blocks, out.Bfree, out.Frsize)
	}
}

func TestSingleFileIsTheRoot(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, true)
	root := c.getattr(rootNode)
	if root.Mode&syscall.S_IFMT != syscall.S_IFREG || root.Size != testSize {
		t.Errorf("the root has mode %o and %d bytes", root.Mode, root.Size)
	}
	if n, status := c.write(rootNode, 9, []byte("hello")); n != 5 || !status.Ok() {
		t.Fatal(n, status)
	}
	if got, _ := c.read(rootNode, 9, 5); string(got) != "hello" {
		t.Errorf("read %q", got)
	}
	_, _, status := call[fuse.OpenOut](c, opOpendir, rootNode, fuse.OpenIn{})
	wantStatus(t, "OPENDIR", status, fuse.ENOTDIR)
	_, status = c.lookup(diskName)
	wantStatus(t, "LOOKUP", status, fuse.ENOTDIR)
}

func TestUnknownNodesAreStale(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	const gone = 4711
	_, status := c.open(gone, 0)
	wantStatus(t, "OPEN", status, statusStale)
	_, status = c.read(gone, 0, 1)
	wantStatus(t, "READ", status, statusStale)
	_, status = c.write(gone, 0, []byte("x"))
	wantStatus(t, "WRITE", status, statusStale)
	_, _, status = call[fuse.LseekOut](c, opLseek, gone, fuse.LseekIn{Whence: unix.SEEK_DATA})
	wantStatus(t, "LSEEK", status, statusStale)
}

func TestErrBrokenIsNoSentinel(t *testing.T) {
	for _, s := range statuses {
		if errors.Is(errBroken, s.err) {
			t.Errorf("%v is in the table", s.err)
		}
	}
}
