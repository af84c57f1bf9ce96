package blktap

import (
	"encoding/binary"
	"errors"
	"math"
	"sync/atomic"
	"testing"
)

// slotOf is a slot with the fields of q, written at the interface's offsets.
func slotOf(q request) (b [slotSize]byte) {
	b[0], b[1] = byte(q.op), q.count
	binary.NativeEndian.PutUint64(b[8:], q.id)
	binary.NativeEndian.PutUint64(b[16:], q.sector)
	for i, s := range q.segments {
		b[24+8*i+4], b[24+8*i+5] = s.first, s.last
	}
	if q.op == Trim {
		binary.NativeEndian.PutUint64(b[24:], q.trim)
	}
	return b
}

func pages(n int) (s [maxSegments]segment) {
	for i := range n {
		s[i] = segment{0, 7}
	}
	return s
}

func TestDecodeReadsTheInterfacesOffsets(t *testing.T) {
	for _, want := range []request{
		{op: Read, count: 2, id: 31, sector: 1 << 40, segments: [maxSegments]segment{{3, 7}, {0, 2}}},
		{op: Write, count: 11, id: math.MaxUint64, sector: math.MaxUint64, segments: pages(11)},
		{op: Trim, id: 5, sector: 7, trim: 1 << 33},
	} {
		var got request
		b := slotOf(want)
		got.decode(&b)
		if got != want {
			t.Errorf("decoded %+v, want %+v", got, want)
		}
	}
}

func TestCheckRefusesWhatCantBeDone(t *testing.T) {
	const capacity = 100
	for _, c := range []struct {
		name string
		q    request
		want error
	}{
		{"whole disk", request{op: Read, count: 11, segments: pages(11), sector: 12}, nil},
		{"last sector", request{op: Write, count: 1, segments: [maxSegments]segment{{7, 7}}, sector: 99}, nil},
		{"last id", request{op: Flush, id: 31}, nil},
		{"flush with rubbish", request{op: Flush, count: 255, sector: math.MaxUint64}, nil},
		{"trim all", request{op: Trim, trim: capacity}, nil},
		{"trim nothing at the end", request{op: Trim, sector: capacity}, nil},
		{"id of no slot", request{op: Flush, id: 32}, errID},
		{"largest id", request{op: Read, count: 1, segments: pages(1), id: math.MaxUint64}, errID},
		{"no segments", request{op: Read}, errSegments},
		{"12 segments", request{op: Write, count: 12, segments: pages(11)}, errSegments},
		{"255 segments", request{op: Write, count: 255, segments: pages(11)}, errSegments},
		{"first after last", request{op: Read, count: 1, segments: [maxSegments]segment{{5, 4}}}, errSegment},
		{"sector after the page", request{op: Read, count: 1, segments: [maxSegments]segment{{0, 8}}}, errSegment},
		{"sector 255", request{op: Write, count: 2, segments: [maxSegments]segment{{0, 7}, {255, 255}}}, errSegment},
		{"past the end", request{op: Read, count: 1, segments: pages(1), sector: 93}, errCapacity},
		{"after the end", request{op: Write, count: 1, segments: pages(1), sector: 101}, errCapacity},
		{"sum overflows", request{op: Read, count: 1, segments: pages(1), sector: math.MaxUint64 - 3}, errCapacity},
		{"trim overflows", request{op: Trim, sector: 8, trim: math.MaxUint64 - 7}, errCapacity},
		{"trim past the end", request{op: Trim, sector: 1, trim: capacity}, errCapacity},
		{"operation 4", request{op: 4}, errOperation},
		{"operation 255", request{op: 255, count: 1, segments: pages(1)}, errOperation},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.q.check(capacity); !errors.Is(err, c.want) {
				t.Errorf("check = %v, want %v", err, c.want)
			}
		})
	}
}

// FuzzSlot: a request that passes the check lies within the disk, and its data
// within its own pages.
func FuzzSlot(f *testing.F) {
	for _, q := range []request{
		{op: Read, count: 11, id: 3, segments: pages(11)},
		{op: Write, count: 1, id: 31, sector: 4096, segments: [maxSegments]segment{{7, 7}}},
		{op: Trim, sector: 1, trim: 1 << 60},
		{op: Flush},
	} {
		b := slotOf(q)
		f.Add(b[:], uint64(1<<20))
	}
	r, err := newRing(make([]byte, MemorySize))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, slot []byte, capacity uint64) {
		var b [slotSize]byte
		copy(b[:], slot)
		var q request
		q.decode(&b)
		if q.check(capacity) != nil {
			return
		}
		if end := q.sector + q.sectors(); q.op != Flush && (end < q.sector || end > capacity) {
			t.Fatalf("%+v ends at %d of %d", q, end, capacity)
		}
		if q.op != Read && q.op != Write {
			return
		}
		total := 0
		for i, s := range q.segments[:q.count] {
			total += len(r.segment(q.id, i, s))
		}
		if uint64(total) != q.sectors()*sectorSize || total > requestMax {
			t.Fatalf("%+v has %d bytes of segments", q, total)
		}
		if q.contiguous() && len(r.run(&q)) != total {
			t.Fatalf("%+v: a run of %d bytes, segments of %d", q, len(r.run(&q)), total)
		}
	})
}

func TestRunIsTheSegments(t *testing.T) {
	r, err := newRing(make([]byte, MemorySize))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		segments   [maxSegments]segment
		count      uint8
		contiguous bool
	}{
		{[maxSegments]segment{{2, 5}}, 1, true},
		{[maxSegments]segment{{2, 7}, {0, 3}}, 2, true},
		{[maxSegments]segment{{2, 7}, {0, 7}, {0, 0}}, 3, true},
		{[maxSegments]segment{{2, 6}, {0, 3}}, 2, false},
		{[maxSegments]segment{{2, 7}, {1, 3}}, 2, false},
		{[maxSegments]segment{{0, 7}, {0, 6}, {0, 7}}, 3, false},
	} {
		q := request{op: Read, id: 9, count: c.count, segments: c.segments}
		if got := q.contiguous(); got != c.contiguous {
			t.Errorf("%v: contiguous = %v", c.segments[:c.count], got)
		}
		if !c.contiguous {
			continue
		}
		run := r.run(&q)
		for i, s := range q.segments[:q.count] {
			part := r.segment(9, i, s)
			if &part[0] != &run[0] {
				t.Errorf("%v: segment %d lies elsewhere", c.segments[:c.count], i)
			}
			run = run[len(part):]
		}
		if len(run) != 0 {
			t.Errorf("%v: the run is %d bytes longer", c.segments[:c.count], len(run))
		}
	}
}

// TestIndexesThatLie: the module's index is believed as far as there can be
// requests.
func TestIndexesThatLie(t *testing.T) {
	for _, c := range []struct {
		name            string
		taken, answered uint32
		produced        uint32
		want            int
		sane            bool
	}{
		{"nothing", 0, 0, 0, 0, true},
		{"a full ring", 0, 0, 32, 32, true},
		{"ahead by more than the ring", 0, 0, 33, 0, false},
		{"ahead by more than what is free", 10, 4, 37, 0, false},
		{"as much as is free", 10, 4, 36, 26, true},
		{"backwards", 5, 5, 4, 0, false},
		{"far ahead", 5, 5, 1 << 31, 0, false},
		{"around zero", math.MaxUint32 - 2, math.MaxUint32 - 4, 5, 8, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := newRing(make([]byte, MemorySize))
			if err != nil {
				t.Fatal(err)
			}
			r.reqCons, r.rspProd = c.taken, c.answered
			atomic.StoreUint32(r.word(offReqProd), c.produced)
			n, err := r.pending()
			if n != c.want || (err == nil) != c.sane || err != nil && !errors.Is(err, errIndexes) {
				t.Errorf("pending = %d, %v", n, err)
			}
		})
	}
}

func TestResponsesLieAtTheInterfacesOffsets(t *testing.T) {
	mem := make([]byte, MemorySize)
	r, err := newRing(mem)
	if err != nil {
		t.Fatal(err)
	}
	r.rspProd = 32 + 5 // the cursor goes on, the slots come again
	r.respond(0x0102030405060708, Trim, statusNotSupported)
	b := mem[64+5*112:]
	if id := binary.NativeEndian.Uint64(b); id != 0x0102030405060708 || b[8] != 3 || int16(binary.NativeEndian.Uint16(b[10:])) != -2 {
		t.Errorf("the response is % x", b[:12])
	}
	if got := binary.NativeEndian.Uint32(mem[8:]); got != 0 {
		t.Errorf("rsp_prod is %d before publish", got)
	}
	r.publish()
	if got := binary.NativeEndian.Uint32(mem[8:]); got != 38 {
		t.Errorf("rsp_prod is %d after publish, want 38", got)
	}
}

func TestMessageIsTakenOnce(t *testing.T) {
	mem := make([]byte, MemorySize)
	r, err := newRing(mem)
	if err != nil {
		t.Fatal(err)
	}
	mem[16] = 3
	if got := r.message(); got != messageClose {
		t.Errorf("message %d, want close", got)
	}
	if got := r.message(); got != messageNone || mem[16] != 0 {
		t.Errorf("message %d is still there", got)
	}
}

func TestTakeCopiesTheSlot(t *testing.T) {
	mem := make([]byte, MemorySize)
	r, err := newRing(mem)
	if err != nil {
		t.Fatal(err)
	}
	b := slotOf(request{op: Write, count: 1, id: 4, segments: pages(1)})
	copy(mem[offSlots:], b[:])
	var q request
	r.take(&q)
	clear(mem[offSlots:][:slotSize]) // what the module does now is too late
	if q.op != Write || q.id != 4 || r.reqCons != 1 {
		t.Errorf("took %+v", q)
	}
}

func TestRingNeedsItsMemory(t *testing.T) {
	for _, n := range []int{pageSize, MemorySize - 1, MemorySize + pageSize} {
		if _, err := newRing(make([]byte, n)); err == nil {
			t.Errorf("%d bytes are a ring", n)
		}
	}
}
