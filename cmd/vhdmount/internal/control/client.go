package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Call sends a request to the server at path and waits for its response, for
// as long as ctx lets it: an Unmount may have gigabytes to flush. A response
// that reports an error is no error of Call.
func Call(ctx context.Context, path string, request Request) (Response, error) {
	c, err := Dial(ctx, path)
	if err != nil {
		return Response{}, err
	}
	defer c.Close()
	return c.Do(ctx, request)
}

// Conversation is a connection by which several requests are made: a Pause and
// what ends it. One goroutine uses it.
type Conversation struct {
	conn *net.UnixConn
	in   *bufio.Reader
}

// Dial begins a conversation with the server at path.
func Dial(ctx context.Context, path string) (*Conversation, error) {
	var conn net.Conn
	err := withShortPath(path, func(short string) (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "unix", short)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &Conversation{conn: conn.(*net.UnixConn), in: bufio.NewReader(io.LimitReader(conn, maxConversation))}, nil
}

// Close ends the conversation, and a pause that it made.
func (c *Conversation) Close() error { return c.conn.Close() }

// Do makes a request, and waits for its response for as long as ctx lets it;
// after it was ended by ctx the conversation is over.
func (c *Conversation) Do(ctx context.Context, request Request) (Response, error) {
	line, err := json.Marshal(wireRequest{request, []byte(request.Image)})
	if err != nil {
		return Response{}, err
	}
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	answer, err := c.exchange(append(line, '\n'), request.Files)
	if err != nil {
		return Response{}, callError(ctx, err)
	}
	var response Response
	if err := json.Unmarshal(answer, &response); err != nil {
		return Response{}, fmt.Errorf("control socket: bad response: %w", err)
	}
	return response, nil
}

// exchange sends a line, with files, and returns the one that answers. A server
// that refuses its peer answers at once and may be gone before it was asked:
// what it said is there all the same.
func (c *Conversation) exchange(line []byte, files []*os.File) ([]byte, error) {
	writeErr := c.write(line, files)
	answer, err := c.in.ReadBytes('\n')
	if err != nil && writeErr != nil {
		err = writeErr
	}
	return answer, err
}

// write sends a line. Files go with its first bytes, as many with each as the
// kernel takes.
func (c *Conversation) write(line []byte, files []*os.File) error {
	for len(files) > 0 {
		n := min(len(files), maxRights)
		fds := make([]int, n)
		for i, f := range files[:n] {
			fds[i] = int(f.Fd())
		}
		if _, _, err := c.conn.WriteMsgUnix(line[:1], unix.UnixRights(fds...), nil); err != nil {
			return err
		}
		line, files = line[1:], files[n:]
	}
	_, err := c.conn.Write(line)
	return err
}

// callError is why a connection broke: the caller's own reason first.
func callError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, io.EOF) {
		return ErrNoAnswer
	}
	return fmt.Errorf("%w: %w", ErrNoAnswer, err)
}
