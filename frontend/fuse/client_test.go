package fuse

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/partition"
)

// Operations, as include/uapi/linux/fuse.h numbers them.
const (
	opLookup     = 1
	opForget     = 2
	opGetattr    = 3
	opSetattr    = 4
	opMkdir      = 9
	opUnlink     = 10
	opRename     = 12
	opOpen       = 14
	opRead       = 15
	opWrite      = 16
	opStatfs     = 17
	opRelease    = 18
	opFsync      = 20
	opSetxattr   = 21
	opGetxattr   = 22
	opFlush      = 25
	opInit       = 26
	opOpendir    = 27
	opReaddir    = 28
	opReleasedir = 29
	opIoctl      = 39
	opFallocate  = 43
	opLseek      = 46
)

// fakeTransport remembers what the file system asks of a transport.
type fakeTransport struct {
	mu       sync.Mutex
	reasons  []reason
	messages [][]byte
	away     int           // handOvers without takeBack
	hold     chan struct{} // if set, notify waits until it is closed
}

func (*fakeTransport) handshake(handler) error { return nil }
func (*fakeTransport) serve(handler) error     { return nil }
func (*fakeTransport) close() error            { return nil }

func (t *fakeTransport) handOver(why reason) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reasons = append(t.reasons, why)
	t.away++
	return true
}

func (t *fakeTransport) takeBack(reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.away--
}

func (t *fakeTransport) notify(msg []byte) error {
	if t.hold != nil {
		<-t.hold
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.messages = append(t.messages, msg)
	return nil
}

// dropped are the ranges that the kernel was told to drop, by node.
func (t *fakeTransport) dropped() map[uint64]extent {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[uint64]extent)
	for _, m := range t.messages {
		start := int64(binary.NativeEndian.Uint64(m[24:]))
		all[binary.NativeEndian.Uint64(m[16:])] = extent{start, start + int64(binary.NativeEndian.Uint64(m[32:]))}
	}
	return all
}

// faulty is a device without any extra ability whose operations fail with
// what is set.
type faulty struct {
	blockdev.Device
	read, write, flush atomic.Pointer[error]
}

func (d *faulty) ReadAt(p []byte, off int64) (int, error) {
	if err := d.read.Load(); err != nil {
		return 0, *err
	}
	return d.Device.ReadAt(p, off)
}

func (d *faulty) WriteAt(p []byte, off int64) (int, error) {
	if err := d.write.Load(); err != nil {
		return 0, *err
	}
	return d.Device.WriteAt(p, off)
}

func (d *faulty) Flush() error {
	if err := d.flush.Load(); err != nil {
		return *err
	}
	return d.Device.Flush()
}

// client speaks FUSE to a file system as the kernel would.
type client struct {
	t         *testing.T
	server    *fuse.ProtocolServer
	files     *filesystem
	transport *fakeTransport
	caller    fuse.Caller
	buffers   *buffers
}

// newClient returns a client of dev shown as o says; the disk is the root if
// single.
func newClient(t *testing.T, dev blockdev.Device, o Options, single bool) *client {
	t.Helper()
	if o.Partitions == nil {
		o.Partitions = func(blockdev.Device) ([]partition.Partition, error) { return nil, nil }
	}
	if o.Info == nil {
		o.Info = func() []byte { return deviceInfo(dev) }
	}
	o = New(o).options
	files := newFilesystem(&o, dev, single)
	transport := &fakeTransport{}
	files.transport = transport
	files.inval = newInvalidator(transport.notify)
	var running sync.WaitGroup
	running.Go(files.inval.run)
	t.Cleanup(func() {
		files.inval.stop()
		running.Wait()
		if transport.away != 0 {
			t.Errorf("%d threads were handed over and not taken back", transport.away)
		}
	})
	c := &client{t: t, server: newServer(files), files: files, transport: transport, buffers: newBuffers()}
	in := fuse.InitIn{Major: 7, Minor: 45, Flags: fuse.CAP_ASYNC_DIO | fuse.CAP_MAX_PAGES | fuse.CAP_BIG_WRITES, MaxReadAhead: 128 << 10}
	if _, _, status := call[fuse.InitOut](c, opInit, 0, in); !status.Ok() {
		t.Fatal("INIT:", status)
	}
	return c
}

// call sends a request with its fixed part and what follows it, and returns
// the reply's fixed part, what follows that, and the status.
func call[Out, In any](c *client, op uint32, node uint64, in In, payload ...byte) (out Out, rest []byte, status fuse.Status) {
	c.t.Helper()
	h := (*fuse.InHeader)(unsafe.Pointer(&in))
	size := unsafe.Sizeof(in)
	if op == opSetxattr {
		size -= 8 // as without CAP_SETXATTR_EXT
	}
	*h = fuse.InHeader{Opcode: op, Unique: 77, NodeId: node, Caller: c.caller, Length: uint32(int(size) + len(payload))}
	n := copy(c.buffers.in, unsafe.Slice((*byte)(unsafe.Pointer(&in)), size))
	n += copy(c.buffers.in[n:], payload)
	reply := c.buffers.handle(c.server, n)
	if len(reply) == 0 {
		return out, nil, fuse.OK
	}
	if length := int(binary.NativeEndian.Uint32(reply)); length != len(reply) {
		c.t.Fatalf("op %d: reply of %d bytes says it has %d", op, len(reply), length)
	}
	if unique := binary.NativeEndian.Uint64(reply[8:]); unique != 77 {
		c.t.Fatalf("op %d: reply to request %d", op, unique)
	}
	status = fuse.Status(-int32(binary.NativeEndian.Uint32(reply[4:])))
	body := reply[replyHeader:]
	m := copy(unsafe.Slice((*byte)(unsafe.Pointer(&out)), unsafe.Sizeof(out)), body)
	return out, slices.Clone(body[m:]), status
}

type none struct{}

func (c *client) lookup(name string) (fuse.EntryOut, fuse.Status) {
	c.t.Helper()
	out, _, status := call[fuse.EntryOut](c, opLookup, rootNode, fuse.InHeader{}, append([]byte(name), 0)...)
	return out, status
}

func (c *client) open(node uint64, flags uint32) (fuse.OpenOut, fuse.Status) {
	c.t.Helper()
	out, _, status := call[fuse.OpenOut](c, opOpen, node, fuse.OpenIn{Flags: flags})
	return out, status
}

// mustOpen opens node and returns the handle's number.
func (c *client) mustOpen(node uint64, flags uint32) uint64 {
	c.t.Helper()
	out, status := c.open(node, flags)
	if !status.Ok() {
		c.t.Fatalf("OPEN of node %d: %v", node, status)
	}
	return out.Fh
}

func (c *client) release(node, fh uint64) {
	c.t.Helper()
	if _, _, status := call[none](c, opRelease, node, fuse.ReleaseIn{Fh: fh}); !status.Ok() {
		c.t.Fatal("RELEASE:", status)
	}
}

func (c *client) read(node uint64, off, n int) ([]byte, fuse.Status) {
	c.t.Helper()
	_, data, status := call[none](c, opRead, node, fuse.ReadIn{Offset: uint64(off), Size: uint32(n)})
	return data, status
}

func (c *client) write(node uint64, off int, data []byte) (int, fuse.Status) {
	c.t.Helper()
	out, _, status := call[fuse.WriteOut](c, opWrite, node, fuse.WriteIn{Offset: uint64(off), Size: uint32(len(data))}, data...)
	return int(out.Size), status
}

func (c *client) getattr(node uint64) fuse.AttrOut {
	c.t.Helper()
	out, _, status := call[fuse.AttrOut](c, opGetattr, node, fuse.GetAttrIn{})
	if !status.Ok() {
		c.t.Fatalf("GETATTR of node %d: %v", node, status)
	}
	return out
}

// list is the directory's names.
func (c *client) list() []string {
	c.t.Helper()
	dir, _, status := call[fuse.OpenOut](c, opOpendir, rootNode, fuse.OpenIn{})
	if !status.Ok() {
		c.t.Fatal("OPENDIR:", status)
	}
	var names []string
	for off := uint64(0); ; {
		// A small buffer, so that a listing takes several.
		_, data, status := call[none](c, opReaddir, rootNode, fuse.ReadIn{Fh: dir.Fh, Offset: off, Size: 80})
		if !status.Ok() {
			c.t.Fatal("READDIR:", status)
		}
		entries, err := fuse.ParseDirEntries(data)
		if err != nil {
			c.t.Fatal(err)
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			names, off = append(names, e.Name), e.Off
		}
	}
	call[none](c, opReleasedir, rootNode, fuse.ReleaseIn{Fh: dir.Fh})
	return names
}

// wantStatus fails the test unless got is want.
func wantStatus(t *testing.T, what string, got, want fuse.Status) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// logTo is a log whose lines land in lines.
func logTo(lines *logLines) *slog.Logger { return slog.New(slog.NewTextHandler(lines, nil)) }

type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logLines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

var errBroken = errors.New("the disk is broken")
