package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/daemon"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/logfile"
)

// logLimit is how large a background server's log grows, in bytes: the runtime
// directory is memory.
const logLimit = 1 << 20

// stage is where a server runs: in the foreground, or behind a process that
// waits until it is ready.
type stage interface {
	// openLog is where to log; path is free for a file.
	openLog(path string) (io.Writer, error)
	// logPath is the file that openLog made; empty if none.
	logPath() string
	// announce tells the user that the disk is there.
	announce(disk string) error
	// warn tells the user something before that.
	warn(text string)
	// close ends the log, and removes it when the server ended well.
	close(serveErr error) error
}

// foreground is a server in the user's terminal.
type foreground struct {
	stdout, stderr io.Writer
}

func (f *foreground) openLog(string) (io.Writer, error) { return f.stderr, nil }
func (f *foreground) logPath() string                   { return "" }
func (f *foreground) warn(text string)                  { warn(f.stderr, "%s", text) }
func (f *foreground) close(error) error                 { return nil }

func (f *foreground) announce(disk string) error {
	if _, err := fmt.Fprintln(f.stdout, disk); err != nil {
		return err
	}
	// run's buffer is flushed at the end of the process, which may be days off.
	if b, ok := f.stdout.(interface{ Flush() error }); ok {
		return b.Flush()
	}
	return nil
}

// background is a server that a waiting process started.
type background struct {
	child  *daemon.Readiness
	stderr io.Writer
	path   string
	log    *logfile.File
	ready  bool // announced
}

func (b *background) openLog(path string) (io.Writer, error) {
	log, err := logfile.Create(path, logLimit)
	if err != nil {
		return nil, err
	}
	b.path, b.log = path, log
	return log, nil
}

func (b *background) logPath() string  { return b.path }
func (b *background) warn(text string) { warn(b.stderr, "%s", text) }

func (b *background) announce(disk string) error {
	b.ready = true // whatever comes of it, the waiting process has its answer or is gone
	return b.child.Ready(disk, b.log.OSFile())
}

func (b *background) close(serveErr error) error {
	if b.log == nil {
		return nil
	}
	err := b.log.Close()
	if serveErr == nil || !b.ready {
		if removeErr := os.Remove(b.path); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}
