// Package signals is what a mount's server does about signals: those that ask
// it to end are delivered, those that would kill it for a failed write are
// ignored, so that the write's error is seen instead.
package signals

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Terminating returns the signals that ask for an orderly end: SIGTERM,
// SIGINT and SIGHUP. None is lost while nobody receives, up to the first few.
// stop gives them back to the system, after which they kill.
func Terminating() (c <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	return ch, func() { signal.Stop(ch) }
}

// IgnoreWriteSignals makes a write past the file size limit (SIGXFSZ) or to a
// broken pipe (SIGPIPE: the log, in the foreground) an error like any other.
func IgnoreWriteSignals() {
	signal.Ignore(unix.SIGXFSZ, unix.SIGPIPE)
}
