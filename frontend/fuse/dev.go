package fuse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// maxWrite is the largest READ and WRITE, in bytes: what 256 pages, the
	// kernel's limit, hold.
	maxWrite = 1 << 20
	// headerRoom is what a request and a reply may have beside the data.
	headerRoom = 4 << 10
	// writeHeader and replyHeader are what comes before the data in a WRITE
	// request and in a READ reply.
	writeHeader = int(unsafe.Sizeof(fuse.WriteIn{}))
	replyHeader = int(unsafe.Sizeof(fuse.OutHeader{}))
	inHeader    = int(unsafe.Sizeof(fuse.InHeader{}))

	// maxReaders and maxThreads bound how many threads take requests at a
	// time, if that is not given, and how many there are while some wait for
	// a disk. More than four readers were never faster.
	maxReaders = 4
	maxThreads = 16
)

// errAborted says that the connection was cut, as by fusectl's abort.
var errAborted = errors.New("the kernel's connection was aborted")

// dev is the transport on /dev/fuse: each thread reads a request, has it
// answered and writes the reply.
type dev struct {
	fd   int
	log  *slog.Logger
	pool *pool

	// mu guards err, the first reason why a thread ended that is no unmount.
	mu  sync.Mutex
	err error
}

// newDev returns the transport on a descriptor of /dev/fuse that is mounted,
// which it owns. readers is the number of threads that take requests at a
// time; 0 chooses.
func newDev(fd, readers int, log *slog.Logger) *dev {
	processors := runtime.GOMAXPROCS(0)
	least, most := readers, readers
	if readers <= 0 {
		least, most = 1, min(2*processors, maxReaders)
	}
	return &dev{fd: fd, log: log, pool: newPool(least, most, processors, maxThreads)}
}

func (d *dev) handshake(h handler) error {
	b := newBuffers()
	for {
		n, err := d.read(b.in)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the kernel's first request: %w", err)
		}
		reply := b.handle(h, n)
		if len(reply) < replyHeader {
			return errors.New("the kernel's first request was not understood")
		}
		if code := int32(binary.NativeEndian.Uint32(reply[4:])); code != 0 {
			return fmt.Errorf("the kernel's version of FUSE is too old: %w", unix.Errno(-code))
		}
		return d.write(reply)
	}
}

func (d *dev) serve(h handler) error {
	var threads sync.WaitGroup
	d.pool.start = func() { threads.Go(func() { d.thread(h) }) }
	d.pool.run()
	threads.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// thread takes requests until the file system is unmounted.
func (d *dev) thread(h handler) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := newBuffers()
	for d.pool.next() {
		n, err := d.read(b.in)
		d.pool.took()
		switch err {
		case nil:
			d.reply(b.handle(h, n))
		case unix.EINTR, unix.EAGAIN, unix.ENOENT: // ENOENT: its client was interrupted before it was read
		default:
			d.end(err)
		}
	}
}

// end stops all threads after one could not read.
func (d *dev) end(err error) {
	if err == unix.ECONNABORTED {
		err = errAborted
	}
	d.mu.Lock()
	if err != unix.ENODEV && d.err == nil {
		d.err = fmt.Errorf("reading from /dev/fuse: %w", err)
	}
	d.mu.Unlock()
	d.pool.stop()
}

// reply sends a reply. The kernel refuses one whose client has gone (ENOENT)
// and all of them after an unmount (ENODEV): nobody is left to be told.
func (d *dev) reply(msg []byte) {
	if len(msg) == 0 {
		return
	}
	if err := d.write(msg); err != nil && err != unix.ENOENT && err != unix.ENODEV && err != unix.ECONNABORTED {
		d.log.Error("fuse: reply refused", "bytes", len(msg), "error", err)
	}
}

func (d *dev) read(p []byte) (int, error) { return unix.Read(d.fd, p) }

// write sends one message. The kernel takes it whole or not at all.
func (d *dev) write(msg []byte) error {
	for {
		if _, err := unix.Write(d.fd, msg); err != unix.EINTR {
			return err
		}
	}
}

func (d *dev) handOver(why reason) bool { return d.pool.handOver(why) }
func (d *dev) takeBack(why reason)      { d.pool.takeBack(why) }
func (d *dev) notify(msg []byte) error  { return d.write(msg) }
func (d *dev) close() error             { return unix.Close(d.fd) }

// buffers are a thread's, for one request and its reply at a time. The data of
// a WRITE and of a READ's reply begin at a page, which is where the kernel
// copies fastest.
type buffers struct {
	in, out       []byte
	inIov, outIov [1][]byte // kept, so that no request allocates them
}

func newBuffers() *buffers {
	b := &buffers{
		in:  alignedTo(writeHeader, maxWrite+headerRoom),
		out: alignedTo(replyHeader, maxWrite+headerRoom),
	}
	b.outIov[0] = b.out
	return b
}

// alignedTo returns n bytes of which the one at offset off begins a page.
func alignedTo(off, n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := -(int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) + off) & (page - 1)
	return b[skip:][:n:n]
}

// handle has h answer the request in b.in[:n] and returns the reply.
func (b *buffers) handle(h handler, n int) []byte {
	b.inIov[0] = b.in[:n]
	m, status := h.HandleRequest(b.inIov[:], b.outIov[:])
	if m == 0 && !status.Ok() && n >= inHeader {
		return b.refuse(status)
	}
	return b.out[:m]
}

// refuse makes the reply to a request that the handler could not parse: its
// client must not wait for ever.
func (b *buffers) refuse(status fuse.Status) []byte {
	reply := b.out[:replyHeader]
	binary.NativeEndian.PutUint32(reply[0:], uint32(replyHeader))
	binary.NativeEndian.PutUint32(reply[4:], uint32(-status))
	copy(reply[8:16], b.in[8:16]) // the request's number
	return reply
}
