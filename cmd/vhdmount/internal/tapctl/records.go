package tapctl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"
)

// Response is the record of an answer that has only success or failure to
// tell.
type Response struct {
	Errno   syscall.Errno // 0: it went well
	Message string        // more about it, often empty; at most PathMax bytes
}

// Offsets in a Response.
const (
	responseErrorAt   = 0
	responseMessageAt = 4
)

// SetResponse makes r the message's record, a text that is too long cut off.
// The errno goes out as a positive number, as tap-ctl reads it.
func (m *Message) SetResponse(r Response) {
	m.union = [unionSize]byte{}
	put32(&m.union, responseErrorAt, uint32(r.Errno))
	putBytes(&m.union, responseMessageAt, r.Message)
}

// Response reads the record of an answer. Tapdisks disagree on the errno's
// sign: either is understood.
func (m *Message) Response() (Response, error) {
	errno := int64(int32(get32(&m.union, responseErrorAt)))
	if errno < 0 {
		errno = -errno
	}
	s, err := text(&m.union, responseMessageAt)
	if err != nil {
		return Response{}, fmt.Errorf("message: %w", err)
	}
	return Response{Errno: syscall.Errno(errno), Message: s}, nil
}

// Image is the record that answers an open.
type Image struct {
	Sectors    uint64
	SectorSize uint32 // bytes
	Info       uint32 // InfoReadOnly or 0
}

// InfoReadOnly is the bit of Image.Info for a read-only disk.
const InfoReadOnly uint32 = 4

// Offsets in an Image.
const (
	imageSectorsAt    = 0
	imageSectorSizeAt = 8
	imageInfoAt       = 12
)

// SetImage makes i the message's record.
func (m *Message) SetImage(i Image) {
	m.union = [unionSize]byte{}
	put64(&m.union, imageSectorsAt, i.Sectors)
	put32(&m.union, imageSectorSizeAt, i.SectorSize)
	put32(&m.union, imageInfoAt, i.Info)
}

// Image reads the record that answers an open.
func (m *Message) Image() Image {
	return Image{
		Sectors:    get64(&m.union, imageSectorsAt),
		SectorSize: get32(&m.union, imageSectorSizeAt),
		Info:       get32(&m.union, imageInfoAt),
	}
}

// MinorsMax is how many minors a message can list.
const MinorsMax = 63

// Offsets in the record of TypeListMinorsResponse.
const (
	minorsCountAt = 0
	minorsListAt  = 4
)

// SetMinors makes the minors the message's record; more than [MinorsMax] is
// [ErrCount].
func (m *Message) SetMinors(minors []int) error {
	if len(minors) > MinorsMax {
		return fmt.Errorf("%w: %d minors, a message has room for %d", ErrCount, len(minors), MinorsMax)
	}
	m.union = [unionSize]byte{}
	put32(&m.union, minorsCountAt, uint32(len(minors)))
	for i, minor := range minors {
		put32(&m.union, minorsListAt+4*i, uint32(int32(minor)))
	}
	return nil
}

// Minors reads the record of TypeListMinorsResponse. A count that is negative
// or above [MinorsMax] is [ErrCount].
func (m *Message) Minors() ([]int, error) {
	n := int32(get32(&m.union, minorsCountAt))
	if n < 0 || n > MinorsMax {
		return nil, fmt.Errorf("%w: %d minors, a message has room for %d", ErrCount, n, MinorsMax)
	}
	minors := make([]int, n)
	for i := range minors {
		minors[i] = int(int32(get32(&m.union, minorsListAt+4*i)))
	}
	return minors, nil
}

// State is the state of a disk in a tapdisk: bits, of which tap-ctl shows the
// number in hexadecimal.
type State uint32

// The states that a disk at rest is in.
const (
	StateRunning State = 0
	// StatePaused is what a tapdisk says of a paused disk: paused, its queue
	// stopped, its device closed.
	StatePaused State = 0x2a
)

// ListEntry is the record of an answer to LIST. There is one for each disk,
// with a Count that goes down to 1, and one more whose Count is 0.
type ListEntry struct {
	Count int // of the entries from this one on
	Minor int // -1: none
	State State
	Path  string // "vhd:/path"; empty for a disk that is attached but not open
}

// Offsets in a ListEntry.
const (
	listCountAt = 0
	listMinorAt = 4
	listStateAt = 8
	listPathAt  = 12
)

// SetListEntry makes e the message's record, a path that is too long cut off.
func (m *Message) SetListEntry(e ListEntry) {
	m.union = [unionSize]byte{}
	put32(&m.union, listCountAt, uint32(int32(e.Count)))
	put32(&m.union, listMinorAt, uint32(int32(e.Minor)))
	put32(&m.union, listStateAt, uint32(e.State))
	putBytes(&m.union, listPathAt, e.Path)
}

// ListEntry reads the record of an answer to LIST. A negative count is
// [ErrCount], a path without an end [ErrNotTerminated].
func (m *Message) ListEntry() (ListEntry, error) {
	e := ListEntry{
		Count: int(int32(get32(&m.union, listCountAt))),
		Minor: int(int32(get32(&m.union, listMinorAt))),
		State: State(get32(&m.union, listStateAt)),
	}
	if e.Count < 0 {
		return ListEntry{}, fmt.Errorf("%w: %d disks", ErrCount, e.Count)
	}
	var err error
	if e.Path, err = text(&m.union, listPathAt); err != nil {
		return ListEntry{}, fmt.Errorf("path: %w", err)
	}
	return e, nil
}

// pidAt and statsLengthAt are the offsets of the records of one number. What
// stands before the length of the statistics nobody fills in.
const (
	pidAt         = 0
	statsLengthAt = 8
)

// SetPID makes the process's number the message's record.
func (m *Message) SetPID(pid int) {
	m.union = [unionSize]byte{}
	put32(&m.union, pidAt, uint32(int32(pid)))
}

// PID reads the record of TypePIDResponse.
func (m *Message) PID() int { return int(int32(get32(&m.union, pidAt))) }

// SetStatsLength makes the length of the JSON that follows, in bytes, the
// message's record.
func (m *Message) SetStatsLength(n uint64) {
	m.union = [unionSize]byte{}
	put64(&m.union, statsLengthAt, n)
}

// StatsLength reads the record of TypeStatsResponse: how many bytes of JSON
// follow. It is the sender's word, to be bounded before it is used.
func (m *Message) StatsLength() uint64 { return get64(&m.union, statsLengthAt) }

func get16(u *[unionSize]byte, at int) uint16 { return binary.NativeEndian.Uint16(u[at:]) }
func get32(u *[unionSize]byte, at int) uint32 { return binary.NativeEndian.Uint32(u[at:]) }
func get64(u *[unionSize]byte, at int) uint64 { return binary.NativeEndian.Uint64(u[at:]) }

func put16(u *[unionSize]byte, at int, v uint16) { binary.NativeEndian.PutUint16(u[at:], v) }
func put32(u *[unionSize]byte, at int, v uint32) { binary.NativeEndian.PutUint32(u[at:], v) }
func put64(u *[unionSize]byte, at int, v uint64) { binary.NativeEndian.PutUint64(u[at:], v) }

// text reads the text of a field of pathSize bytes, up to its zero.
func text(u *[unionSize]byte, at int) (string, error) {
	field := u[at : at+pathSize]
	end := bytes.IndexByte(field, 0)
	if end < 0 {
		return "", fmt.Errorf("%w of %d bytes", ErrNotTerminated, pathSize)
	}
	return string(field[:end]), nil
}

// putText writes s into a field of pathSize bytes that is zero.
func putText(u *[unionSize]byte, at int, s string) error {
	if len(s) > PathMax {
		return fmt.Errorf("%w: %d bytes, a message has room for %d", ErrTooLong, len(s), PathMax)
	}
	putBytes(u, at, s)
	return nil
}

// putBytes writes as much of s as the field has room for.
func putBytes(u *[unionSize]byte, at int, s string) { copy(u[at:at+PathMax], s) }
