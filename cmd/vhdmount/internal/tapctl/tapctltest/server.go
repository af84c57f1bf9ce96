// Package tapctltest is a tapdisk for tests of those that drive one: it
// listens where a tapdisk does, and answers as the test says.
package tapctltest

import (
	"net"
	"os"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
)

// Answer answers a request. What follows the request's message is on conn, and
// so goes what it writes; conn is closed afterwards. It runs in a goroutine of
// its own for each connection.
type Answer func(conn net.Conn, request tapctl.Message)

// Serve listens in dir as the tapdisk pid, until the test ends, which waits
// for all answers. A request that can't be read is not answered.
func Serve(tb testing.TB, dir tapctl.Dir, pid int, answer Answer) {
	tb.Helper()
	if err := os.MkdirAll(dir.Path, 0o755); err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("unix", dir.Socket(pid))
	if err != nil {
		tb.Fatal(err)
	}
	var group sync.WaitGroup
	tb.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer conn.Close()
				if m, err := tapctl.ReadMessage(conn); err == nil {
					answer(conn, m)
				}
			})
		}
	})
}

// Reply is the answer of a type, with the record that set writes; set may be
// nil.
func Reply(t tapctl.Type, set func(*tapctl.Message)) Answer {
	return func(conn net.Conn, request tapctl.Message) {
		m := tapctl.Message{Type: t, Cookie: request.Cookie}
		if set != nil {
			set(&m)
		}
		_ = tapctl.WriteMessage(conn, m) // the client may have gone
	}
}
