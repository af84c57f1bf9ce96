package tapctl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MessageSize is the length of every message, in bytes.
const MessageSize = 544

// PathMax is the longest path that fits into a message, in bytes: one less
// than its field, which ends with a zero.
const PathMax = pathSize - 1

// AllMinors is the cookie of a request that is about no single disk: LIST, and
// STATS of every disk at once.
const AllMinors uint16 = 0xffff

// Offsets in a message. The four bytes before the union are padding.
const (
	typeAt    = 0
	cookieAt  = 2
	unionAt   = 8
	unionSize = MessageSize - unionAt
)

// What decoding and encoding a message may fail with.
var (
	// ErrCutShort is a stream that ended inside of a message.
	ErrCutShort = errors.New("message is cut short")
	// ErrUnknownType is a message of a type that the protocol doesn't have.
	ErrUnknownType = errors.New("unknown message type")
	// ErrNotTerminated is a text that fills its field without the zero that
	// ends it. A tapdisk answers EINVAL.
	ErrNotTerminated = errors.New("text has no end within its field")
	// ErrTooLong is a text that doesn't fit into its field.
	ErrTooLong = errors.New("text is too long")
	// ErrCount is a count below zero, or one past its table.
	ErrCount = errors.New("count is out of range")
)

// Type says what a message asks or answers, and which record its union holds.
type Type uint16

// The types. A request that failed is answered by TypeError with a Response.
const (
	TypeError              Type = 1  // Response
	TypeRuntimeError       Type = 2  // never seen on a socket
	TypePID                Type = 3  // nothing
	TypePIDResponse        Type = 4  // SetPID
	TypeAttach             Type = 5  // nothing; the cookie is the minor, as in all that follow
	TypeAttachResponse     Type = 6  // Response
	TypeOpen               Type = 7  // Params
	TypeOpenResponse       Type = 8  // Image
	TypePause              Type = 9  // nothing
	TypePauseResponse      Type = 10 // Response
	TypeResume             Type = 11 // Params, of which path, secondary and flags count
	TypeResumeResponse     Type = 12 // Response
	TypeClose              Type = 13 // nothing
	TypeCloseResponse      Type = 14 // Response
	TypeDetach             Type = 15 // nothing
	TypeDetachResponse     Type = 16 // Response
	TypeListMinors         Type = 17 // nothing
	TypeListMinorsResponse Type = 18 // Minors
	TypeList               Type = 19 // nothing
	TypeListResponse       Type = 20 // ListEntry
	TypeStats              Type = 21 // nothing
	TypeStatsResponse      Type = 22 // SetStatsLength
	TypeForceShutdown      Type = 23 // nothing; answered by TypeCloseResponse
	TypeConnect            Type = 24 // of Xen's block interface, which is not blktap's
	TypeConnectResponse    Type = 25
	TypeDisconnect         Type = 26
	TypeDisconnectResponse Type = 27
	TypeDiskInfo           Type = 28 // nothing
	TypeDiskInfoResponse   Type = 29 // Image
	TypeExit               Type = 30 // nothing
	lastType                    = TypeExit
)

// typeNames are tap-ctl's words for the types.
var typeNames = [lastType + 1]string{
	TypeError: "error", TypeRuntimeError: "runtime error",
	TypePID: "pid", TypePIDResponse: "pid response",
	TypeAttach: "attach", TypeAttachResponse: "attach response",
	TypeOpen: "open", TypeOpenResponse: "open response",
	TypePause: "pause", TypePauseResponse: "pause response",
	TypeResume: "resume", TypeResumeResponse: "resume response",
	TypeClose: "close", TypeCloseResponse: "close response",
	TypeDetach: "detach", TypeDetachResponse: "detach response",
	TypeListMinors: "list minors", TypeListMinorsResponse: "list minors response",
	TypeList: "list", TypeListResponse: "list response",
	TypeStats: "stats", TypeStatsResponse: "stats response",
	TypeForceShutdown: "force shutdown",
	TypeConnect:       "sring connect", TypeConnectResponse: "sring connect rsp",
	TypeDisconnect: "sring disconnect", TypeDisconnectResponse: "sring disconnect rsp",
	TypeDiskInfo: "disk info", TypeDiskInfoResponse: "disk info rsp",
	TypeExit: "exit",
}

// Known reports whether the protocol has the type.
func (t Type) Known() bool { return t >= TypeError && t <= lastType }

// String is tap-ctl's word for the type, "type 99" for one that it doesn't
// have.
func (t Type) String() string {
	if t.Known() {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint16(t))
}

// Message is one message. Its union holds the record that belongs to the type:
// the methods named after the records read it, those that begin with Set write
// it, over zeros. Nothing keeps one from reading another record than the
// type's: what comes out is then nonsense, or an error, but never a panic.
type Message struct {
	Type   Type
	Cookie uint16 // the minor; AllMinors where a request is about none

	union [unionSize]byte
}

// Decode reads a message off the first [MessageSize] bytes of b. It fails with
// [ErrCutShort] if there are fewer. A type that the protocol doesn't have is no
// error here: a server answers it.
func Decode(b []byte) (Message, error) {
	if len(b) < MessageSize {
		return Message{}, fmt.Errorf("%w: %d of %d bytes", ErrCutShort, len(b), MessageSize)
	}
	m := Message{
		Type:   Type(binary.NativeEndian.Uint16(b[typeAt:])),
		Cookie: binary.NativeEndian.Uint16(b[cookieAt:]),
	}
	copy(m.union[:], b[unionAt:MessageSize])
	return m, nil
}

// Append appends the message's [MessageSize] bytes to b.
func (m *Message) Append(b []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(m.Type))
	b = binary.NativeEndian.AppendUint16(b, m.Cookie)
	b = append(b, make([]byte, unionAt-cookieAt-2)...)
	return append(b, m.union[:]...)
}

// ReadMessage reads a message from a stream. A stream that ends before the
// first byte is io.EOF, one that ends later [ErrCutShort].
func ReadMessage(r io.Reader) (Message, error) {
	var b [MessageSize]byte
	n, err := io.ReadFull(r, b[:])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return Decode(b[:n])
	}
	if err != nil {
		return Message{}, err
	}
	return Decode(b[:])
}

// WriteMessage writes a message to a stream, in one Write.
func WriteMessage(w io.Writer, m Message) error {
	_, err := w.Write(m.Append(make([]byte, 0, MessageSize)))
	return err
}
