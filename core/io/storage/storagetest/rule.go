package storagetest

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"syscall"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// Op is a kind of call that a Fault can fail.
type Op string

// The calls of a storage.FS, and of a storage.File.
const (
	OpOpen    Op = "open"
	OpCreate  Op = "create"
	OpStat    Op = "stat" // of either
	OpResolve Op = "resolve"
	OpRename  Op = "rename"
	OpLink    Op = "link"
	OpRemove  Op = "remove"
	OpSyncDir Op = "syncdir"

	OpRead       Op = "read"
	OpReadNowait Op = "read nowait"
	OpWrite      Op = "write"
	OpSize       Op = "size"
	OpTruncate   Op = "truncate"
	OpSync       Op = "sync"
	OpAllocate   Op = "allocate"
	OpPunchHole  Op = "punch hole"
	OpNextData   Op = "seek data"
	OpLock       Op = "lock"
	OpClose      Op = "close"
)

// Rule says which calls of a Fault fail, and how. Its zero value fails every
// call with EIO.
type Rule struct {
	// Op is the kind of call; empty is any.
	Op Op
	// Path is a pattern of filepath.Match that the name as it was given, or
	// its last element, has to match; empty is any. A call with two names
	// matches by either.
	Path string
	// Off and Len are the range, in bytes, that a call with a range has to
	// touch; a Len of 0 is any call.
	Off, Len int64
	// Skip is the number of matching calls that go through first.
	Skip int
	// Times is the number of calls that fail then; 0 is all from then on.
	Times int
	// Err is the error, wrapped in an *fs.PathError like any other (io.EOF and
	// storage.ErrWouldBlock are not); nil is EIO. ENOSPC is
	// storage.ErrNoSpace, too.
	Err error
	// Short is the number of bytes that a read or write, of more, does before
	// it fails.
	Short int
	// After makes the call succeed below before it fails: a Close that has
	// closed, a Rename that was done.
	After bool
}

// armed is a rule and how often it has matched.
type armed struct {
	Rule
	seen int
}

// hit tells whether the call, which is counted if it matches, is to fail.
func (a *armed) hit(c *Call) bool {
	if !a.matches(c) {
		return false
	}
	a.seen++
	return a.seen > a.Skip && (a.Times == 0 || a.seen <= a.Skip+a.Times)
}

func (a *armed) matches(c *Call) bool {
	if a.Op != "" && a.Op != c.Op {
		return false
	}
	if a.Path != "" && !matchPath(a.Path, c.Path) && !matchPath(a.Path, c.NewPath) {
		return false
	}
	return a.Len == 0 || c.Off < a.Off+a.Len && a.Off < c.Off+c.Len
}

func matchPath(pattern, name string) bool {
	if name == "" {
		return false
	}
	whole, _ := filepath.Match(pattern, name)
	last, _ := filepath.Match(pattern, filepath.Base(name))
	return whole || last
}

// failure is the error that the call returns.
func (a *armed) failure(c *Call) error {
	switch err := a.Err; {
	case err == nil:
		return pathError(string(c.Op), c.Path, syscall.EIO)
	case err == io.EOF || err == storage.ErrWouldBlock:
		return err
	case errors.Is(err, syscall.ENOSPC):
		return pathError(string(c.Op), c.Path, fmt.Errorf("%w: %w", storage.ErrNoSpace, err))
	default:
		return pathError(string(c.Op), c.Path, err)
	}
}

// Call is a call that a Fault has seen.
type Call struct {
	Op       Op
	Path     string // the name, as it was given
	NewPath  string // of OpRename and OpLink
	Off, Len int64  // bytes; Off is the size of OpTruncate
	Injected bool   // whether a rule failed it
	Err      error  // what it returned
}

// String is the call in a line: "write a.vhd 4096+512: no space left".
func (c Call) String() string {
	s := string(c.Op) + " " + c.Path
	switch c.Op {
	case OpRename, OpLink:
		s += " to " + c.NewPath
	case OpRead, OpReadNowait, OpWrite, OpAllocate, OpPunchHole:
		s += fmt.Sprintf(" %d+%d", c.Off, c.Len)
	case OpTruncate, OpNextData:
		s += fmt.Sprintf(" %d", c.Off)
	}
	if c.Injected {
		s += " (injected)"
	}
	if c.Err != nil {
		s += ": " + c.Err.Error()
	}
	return s
}
