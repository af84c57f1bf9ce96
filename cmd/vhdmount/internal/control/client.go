package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
)

// Call sends a request to the server at path and waits for its response, for
// as long as ctx lets it: an Unmount may have gigabytes to flush. A response
// that reports an error is no error of Call.
func Call(ctx context.Context, path string, request Request) (Response, error) {
	line, err := json.Marshal(request)
	if err != nil {
		return Response{}, err
	}
	var conn net.Conn
	err = withShortPath(path, func(short string) (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "unix", short)
		return err
	})
	if err != nil {
		return Response{}, fmt.Errorf("control socket: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	answer, err := exchange(conn, append(line, '\n'))
	if err != nil {
		return Response{}, callError(ctx, err)
	}
	var response Response
	if err := json.Unmarshal(answer, &response); err != nil {
		return Response{}, fmt.Errorf("control socket: bad response: %w", err)
	}
	return response, nil
}

// exchange sends a line and returns the one that answers. A server that
// refuses its peer answers at once and may be gone before it was asked: what it
// said is there all the same.
func exchange(conn net.Conn, line []byte) ([]byte, error) {
	_, writeErr := conn.Write(line)
	answer, err := bufio.NewReader(io.LimitReader(conn, maxLine)).ReadBytes('\n')
	if err != nil && writeErr != nil {
		err = writeErr
	}
	return answer, err
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
