package blktap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"
)

// The shared memory: a ring page, then the segment pages of each request id.
// Sizes are in bytes.
const (
	pageSize    = 4096
	sectorSize  = 512
	ringSlots   = 32
	maxSegments = 11
	requestMax  = maxSegments * pageSize
	pageSectors = pageSize / sectorSize

	// MemorySize is what a Port maps, in bytes: 353 pages.
	MemorySize = pageSize + ringSlots*requestMax
)

// Offsets in the ring page.
const (
	offReqProd = 0  // u32, the module's
	offRspProd = 8  // u32, ours
	offMessage = 16 // u8, the module's; the three bytes after it are unused
	offSlots   = 64
	slotSize   = 112
)

// Offsets in a slot that holds a request.
const (
	offOperation    = 0  // u8
	offSegmentCount = 1  // u8
	offID           = 8  // u64
	offSector       = 16 // u64
	offSegments     = 24 // 11 of 8 bytes
	segmentSize     = 8
	offFirst        = 4  // u8, in a segment
	offLast         = 5  // u8, in a segment
	offTrimCount    = 24 // u64, in place of the segments
)

// Offsets in a slot that holds a response.
const (
	offResponseID        = 0  // u64
	offResponseOperation = 8  // u8
	offResponseStatus    = 10 // i16
)

// Op is what a request does.
type Op uint8

// The operations of a ring. A XenServer module has only the first two.
const (
	Read Op = iota
	Write
	Flush
	Trim
	ops = iota
)

// String is the operation's name in statistics and logs.
func (o Op) String() string {
	switch o {
	case Read:
		return "read"
	case Write:
		return "write"
	case Flush:
		return "flush"
	case Trim:
		return "trim"
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

// message is what the module says beside its requests.
type message uint8

const (
	messageNone message = iota
	messagePause
	messageResume
	messageClose
)

// What is wrong with a request or a ring.
var (
	errOperation = errors.New("unknown operation")
	errSegments  = errors.New("number of segments")
	errSegment   = errors.New("segment")
	errCapacity  = errors.New("passes the end of the disk")
	errID        = errors.New("request id")
	errIndexes   = errors.New("ring indexes")
)

// segment is a run of sectors within a page, both ends included.
type segment struct{ first, last uint8 }

func (s segment) sectors() uint64 { return uint64(s.last) - uint64(s.first) + 1 }

// request is a slot that was copied out of the shared memory. Nothing in it is
// true before check has said so.
type request struct {
	op       Op
	count    uint8 // of segments
	id       uint64
	sector   uint64
	trim     uint64 // sectors, of a Trim
	segments [maxSegments]segment
}

// decode takes a request from a private copy of its slot.
func (q *request) decode(b *[slotSize]byte) {
	q.op, q.count = Op(b[offOperation]), b[offSegmentCount]
	q.id = binary.NativeEndian.Uint64(b[offID:])
	q.sector = binary.NativeEndian.Uint64(b[offSector:])
	if q.op == Trim {
		q.trim = binary.NativeEndian.Uint64(b[offTrimCount:])
		return
	}
	for i := range q.segments {
		s := b[offSegments+i*segmentSize:]
		q.segments[i] = segment{s[offFirst], s[offLast]}
	}
}

// check tells whether the request can be done on a disk of capacity sectors.
// It does not know which ids are taken.
func (q *request) check(capacity uint64) error {
	if q.id >= ringSlots {
		return fmt.Errorf("%w %d of %d", errID, q.id, ringSlots)
	}
	switch q.op {
	case Read, Write:
		if err := q.checkSegments(); err != nil {
			return err
		}
	case Flush:
		return nil
	case Trim:
	default:
		return fmt.Errorf("%w %d", errOperation, q.op)
	}
	if n := q.sectors(); q.sector > capacity || n > capacity-q.sector {
		return fmt.Errorf("%d sectors at %d: %w, of %d sectors", n, q.sector, errCapacity, capacity)
	}
	return nil
}

func (q *request) checkSegments() error {
	if q.count == 0 || q.count > maxSegments {
		return fmt.Errorf("%w %d: not 1 to %d", errSegments, q.count, maxSegments)
	}
	for i, s := range q.segments[:q.count] {
		if s.first > s.last || s.last >= pageSectors {
			return fmt.Errorf("%w %d: sectors %d to %d of %d", errSegment, i, s.first, s.last, pageSectors)
		}
	}
	return nil
}

// sectors is the length of a request whose segments were checked.
func (q *request) sectors() uint64 {
	switch q.op {
	case Trim:
		return q.trim
	case Flush:
		return 0
	}
	n := uint64(0)
	for _, s := range q.segments[:min(q.count, maxSegments)] {
		n += s.sectors()
	}
	return n
}

// contiguous tells whether the data of a checked request is one run of memory:
// no segment but the first begins within its page, none but the last ends there.
func (q *request) contiguous() bool {
	for i, s := range q.segments[:q.count] {
		if i > 0 && s.first != 0 || i < int(q.count)-1 && s.last != pageSectors-1 {
			return false
		}
	}
	return true
}

// ring is the shared memory and our two cursors on it. It is used by one
// goroutine; segment pages are others' too, until the request is answered.
type ring struct {
	mem     []byte
	reqCons uint32 // requests taken
	rspProd uint32 // responses written, published or not
}

func newRing(mem []byte) (*ring, error) {
	if len(mem) != MemorySize || uintptr(unsafe.Pointer(&mem[0]))%8 != 0 {
		return nil, fmt.Errorf("%w: %d bytes of memory, want %d", errIndexes, len(mem), MemorySize)
	}
	return &ring{mem: mem}, nil
}

// word is a shared u32 of the ring page.
func (r *ring) word(off int) *uint32 { return (*uint32)(unsafe.Pointer(&r.mem[off])) }

// pending is how many requests wait to be taken. The module's index is read
// once; one that lies (it went back, or ran ahead by more than the slots that
// have no request of ours) is an error, and nothing is there to be taken.
//
// The load is an acquire: it pairs with the wmb of RING_PUSH_REQUESTS
// (xen/interface/io/ring.h), before which the module wrote the slots and
// mapped their pages.
func (r *ring) pending() (int, error) {
	produced := atomic.LoadUint32(r.word(offReqProd))
	n, unanswered := produced-r.reqCons, r.reqCons-r.rspProd
	if n > ringSlots-unanswered {
		return 0, fmt.Errorf("%w: %d requests produced, %d taken, %d answered", errIndexes, produced, r.reqCons, r.rspProd)
	}
	return int(n), nil
}

// take copies the next pending request out of its slot: once, since what is
// shared may change between a check and its use.
func (r *ring) take(q *request) {
	var slot [slotSize]byte
	copy(slot[:], r.slot(r.reqCons))
	q.decode(&slot)
	r.reqCons++
}

// slot is the one of a cursor, which requests and responses share.
func (r *ring) slot(cursor uint32) []byte {
	return r.mem[offSlots+int(cursor%ringSlots)*slotSize:][:slotSize]
}

// respond writes a response, which the module does not see before publish. Its
// slot held a request that was taken: there are never more responses.
func (r *ring) respond(id uint64, op Op, status int16) {
	b := r.slot(r.rspProd)
	binary.NativeEndian.PutUint64(b[offResponseID:], id)
	b[offResponseOperation] = uint8(op)
	binary.NativeEndian.PutUint16(b[offResponseStatus:], uint16(status))
	r.rspProd++
}

// publish shows the responses to the module. The store is a release: it pairs
// with the rmb of the module's blktap_read_ring, after which that reads the
// slots and, for a read, the segment pages.
func (r *ring) publish() { atomic.StoreUint32(r.word(offRspProd), r.rspProd) }

// message takes the module's message off the ring page. Left there, it would
// make every poll return at once.
func (r *ring) message() message {
	w := r.word(offMessage)
	for {
		v := atomic.LoadUint32(w)
		b := (*[4]byte)(unsafe.Pointer(&v))
		m := message(b[0])
		if m == messageNone || atomic.CompareAndSwapUint32(w, v, 0) {
			return m
		}
	}
}

// segment is the memory of sectors of a segment of request id.
func (r *ring) segment(id uint64, i int, s segment) []byte {
	page := r.mem[pageSize+(int(id)*maxSegments+i)*pageSize:][:pageSize]
	return page[int(s.first)*sectorSize : (int(s.last)+1)*sectorSize]
}

// run is the data of a contiguous request.
func (r *ring) run(q *request) []byte {
	start := pageSize + int(q.id)*requestMax + int(q.segments[0].first)*sectorSize
	return r.mem[start:][:q.sectors()*sectorSize]
}
