package main

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/printable"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// tapError gives an error of a tap verb tap-ctl's exit code, and its line.
func tapError(err error) error {
	var coded *exitcode.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return &exitcode.Error{Code: tapCode(err), Err: finished{tapMessage{err}}}
}

// tapCodes is the one table from errors to tap-ctl's exit codes. The first
// that applies is taken; what isn't here is the errno that the error holds, or
// 1.
var tapCodes = []struct {
	err  error
	code unix.Errno
}{
	{blktap.ErrNoModule, unix.ENOSYS},
	{blktap.ErrNoMinor, unix.ENODEV},
	{blktap.ErrMinorInUse, unix.EBUSY},
	{tapctl.ErrTooLong, unix.ENAMETOOLONG},
	{tapctl.ErrUnexpected, unix.EPROTO},
	{tapctl.ErrCutShort, unix.EPROTO},
	{tapctl.ErrNotTerminated, unix.EPROTO},
	{tapctl.ErrCount, unix.EPROTO},
	{context.DeadlineExceeded, unix.ETIMEDOUT},
}

func tapCode(err error) int {
	for _, c := range tapCodes {
		if errors.Is(err, c.err) {
			return int(c.code)
		}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && errno > 0 && errno < 256 {
		return int(errno)
	}
	return exitcode.Failed
}

// tapMessage is an error whose text is its line, with what to do.
type tapMessage struct{ err error }

func (m tapMessage) Error() string {
	line := text(m.err)
	if todo := tapAdvice(m.err); todo != "" {
		line += " (" + todo + ")"
	}
	return printable.Text(strings.ReplaceAll(line, "\n", "; "))
}

func (m tapMessage) Unwrap() error { return m.err }

// tapAdvices are what to do about errors that are no refusals, for those whose
// own text doesn't say.
var tapAdvices = []struct {
	err  error
	text string
}{
	{blktap.ErrNoModule, ""}, // says it
	{blktap.ErrNoMinor, "vhdmount tap minors lists those that are"},
	{blktap.ErrMinorInUse, "vhdmount tap list shows which"},
	{tapctl.ErrNoTapdisk, "vhdmount tap list shows those that run"},
	{tapctl.ErrTooLong, "give it a shorter name, by a symbolic link"},
	{tapctl.ErrCutShort, "it is a tapdisk of a version that speaks otherwise"},
	{tapctl.ErrUnexpected, "it is a tapdisk of a version that speaks otherwise"},
	{errNoMajor, "load the module with \"modprobe blktap\""},
	{context.DeadlineExceeded, "it may be busy with its disk: a longer --timeout waits for it, where the verb has one"},
	{fs.ErrPermission, "only root may"},
}

// refusals are what to do about a tapdisk's refusal.
var refusals = []struct {
	request tapctl.Type
	errno   syscall.Errno
	text    string
}{
	{tapctl.TypeAttach, unix.EEXIST, "it has that minor already: open an image on it"},
	{tapctl.TypeAttach, unix.EBUSY, "another tapdisk has that minor: vhdmount tap list shows which"},
	{tapctl.TypeAttach, unix.ENODEV, "vhdmount tap allocate makes a minor"},
	{tapctl.TypeAttach, unix.ENOENT, "vhdmount tap allocate makes a minor"},
	{tapctl.TypeAttach, unix.ENXIO, "vhdmount tap allocate makes a minor"},
	{tapctl.TypeDetach, unix.EBUSY, "close its image first"},
	{tapctl.TypeOpen, unix.EALREADY, "an image is open there: close that one, or pause and unpause it under the other's name"},
	{tapctl.TypeOpen, unix.EINVAL, "is the minor attached, the image sound? vhdmount check tells; --layout chooses how an older tapdisk is spoken to"},
	{tapctl.TypeOpen, unix.ENOENT, "is the name right?"},
	{tapctl.TypeResume, unix.ENOENT, "the disk stays paused: unpause it with --args and the image's name"},
	{tapctl.TypeClose, unix.EBUSY, "somebody has the block device open: close it there first"},
}

func tapAdvice(err error) string {
	var refused *tapctl.RefusedError
	if !errors.As(err, &refused) {
		for _, a := range tapAdvices {
			if errors.Is(err, a.err) {
				return a.text
			}
		}
		return ""
	}
	if refused.Message != "" {
		return "" // says it
	}
	for _, r := range refusals {
		if r.request == refused.Type && r.errno == refused.Errno {
			return r.text
		}
	}
	if refused.Errno == unix.ENODEV && refused.Minor != tapctl.AllMinors {
		return "it has no such minor: vhdmount tap list shows those it has"
	}
	return ""
}
