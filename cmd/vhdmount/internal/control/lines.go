package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// lines reads requests, with the files that come with them. It owns those
// files until closeFiles.
type lines struct {
	conn  *net.UnixConn
	buf   []byte // what came after the last line
	files []*os.File
}

// request reads the next request.
func (l *lines) request() (Request, error) {
	line, err := l.line()
	if err != nil {
		return Request{}, fmt.Errorf("control socket: no request: %w", err)
	}
	var wire wireRequest
	if err := json.Unmarshal(line, &wire); err != nil {
		return Request{}, fmt.Errorf("control socket: bad request: %w", err)
	}
	request := wire.Request
	request.Image, request.Files = string(wire.Image), l.files
	return request, nil
}

// line reads up to the next newline.
func (l *lines) line() ([]byte, error) {
	chunk, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*maxRights))
	for {
		if i := bytes.IndexByte(l.buf, '\n'); i >= 0 && i < maxLine {
			line := l.buf[:i]
			l.buf = l.buf[i+1:]
			return line, nil
		}
		if len(l.buf) >= maxLine {
			return nil, fmt.Errorf("a line of more than %d bytes", maxLine)
		}
		n, m, flags, _, err := l.conn.ReadMsgUnix(chunk, rights)
		if m > 0 {
			if filesErr := l.take(rights[:m]); filesErr != nil {
				return nil, filesErr
			}
		}
		switch {
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.ErrUnexpectedEOF
		case flags&unix.MSG_CTRUNC != 0:
			return nil, errors.New("files were lost on the way")
		}
		l.buf = append(l.buf, chunk[:n]...)
	}
}

// take keeps the files of a message.
func (l *lines) take(rights []byte) error {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // not files
		}
		for _, fd := range fds {
			l.files = append(l.files, os.NewFile(uintptr(fd), "passed file"))
		}
	}
	if len(l.files) > maxFiles {
		return fmt.Errorf("%d files came with a request, %d at most may", len(l.files), maxFiles)
	}
	return nil
}

// closeFiles closes the files of the requests so far.
func (l *lines) closeFiles() {
	for _, f := range l.files {
		f.Close()
	}
	l.files = nil
}
