package storage

import (
	"errors"
	"fmt"
	"strings"
)

// What callers branch on, beside fs.ErrNotExist, fs.ErrExist and
// fs.ErrPermission, which errors of this package wrap where they apply.
var (
	ErrNoSpace      = errors.New("no space left")
	ErrReadOnly     = errors.New("read-only file or file system")
	ErrNotRegular   = errors.New("not a regular file")
	ErrOutside      = errors.New("not within the directory")
	ErrNotSupported = errors.New("not supported by the file system")
	ErrWouldBlock   = errors.New("it would wait for the disk")
	ErrInUse        = errors.New("in use")
	ErrClosed       = errors.New("file is closed")
)

// Holder is a process that has a file locked.
type Holder struct {
	PID  int
	Name string // the command's name
}

// String is the name and the process number.
func (h Holder) String() string { return fmt.Sprintf("%s (pid %d)", h.Name, h.PID) }

// InUseError is a lock refused. It unwraps to ErrInUse.
type InUseError struct {
	Name    string
	Access  Access   // what was asked for
	Holders []Holder // who has it, where that can be found
}

// Error says who has the file, and how, where that is known.
func (e *InUseError) Error() string {
	who := "another program"
	if len(e.Holders) > 0 {
		names := make([]string, len(e.Holders))
		for i, h := range e.Holders {
			names[i] = h.String()
		}
		who = strings.Join(names, ", ")
	}
	if e.Access == Shared {
		return "in use: " + who + " has it open for writing"
	}
	return "in use: " + who + " has it open"
}

// Unwrap is ErrInUse.
func (e *InUseError) Unwrap() error { return ErrInUse }
