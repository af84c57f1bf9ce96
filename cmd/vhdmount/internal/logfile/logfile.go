// Package logfile is a log that can't fill the file system it is on: the
// runtime directory is memory.
package logfile

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// File is a log file of bounded size. When it is full, its older half goes.
// Safe for concurrent use.
type File struct {
	limit int64 // bytes

	// mu guards size and orders writes. It is a leaf.
	mu   sync.Mutex
	file *os.File
	size int64 // bytes
}

// Create makes or continues the log at path, which keeps at most limit bytes. It
// is locked (flock) while it is open, by which others see that somebody writes.
func Create(path string, limit int64) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	info, statErr := f.Stat()
	if err = errors.Join(err, statErr); err != nil {
		f.Close()
		return nil, fmt.Errorf("log: %w", err)
	}
	return &File{limit: limit, file: f, size: info.Size()}, nil
}

// Write appends p whole, a line or several.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size+int64(len(p)) > f.limit {
		if err := f.halve(); err != nil {
			return 0, err
		}
	}
	n, err := f.file.Write(p)
	f.size += int64(n)
	return n, err
}

// halve keeps what is in the younger half, from the start of a line. It works
// in place: others may have the descriptor as their standard error.
func (f *File) halve() error {
	keep := make([]byte, min(f.size, f.limit/2))
	n, err := f.file.ReadAt(keep, f.size-int64(len(keep)))
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	keep = afterFirstLine(keep[:n])
	if err := f.file.Truncate(0); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	n, err = f.file.Write(keep)
	f.size = int64(n)
	return err
}

func afterFirstLine(b []byte) []byte {
	for i, c := range b {
		if c == '\n' {
			return b[i+1:]
		}
	}
	return nil
}

// OSFile is the file itself, for a process's standard error.
func (f *File) OSFile() *os.File { return f.file }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }
