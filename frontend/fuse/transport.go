package fuse

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// handler answers one request: in holds it, the reply goes to out, and the
// result is the reply's length in bytes (0: none is wanted).
// *fuse.ProtocolServer is one. It is safe for concurrent use.
type handler interface {
	HandleRequest(in, out [][]byte) (int, fuse.Status)
}

// transport carries the requests of one mounted file system to a handler and
// the replies back. All methods are safe for concurrent use.
type transport interface {
	// handshake has h answer the kernel's INIT, which is the first request.
	// Nothing else comes before it was answered.
	handshake(h handler) error
	// serve has h answer requests until the file system is unmounted, and
	// returns when no request is in flight: nil after an unmount,
	// errAborted when the connection was cut.
	serve(h handler) error
	// handOver is called by a handler that is about to take long, so that
	// another thread answers meanwhile. If it returns true the handler calls
	// takeBack, with the same reason, after. A handler that takes long
	// without saying so is noticed too, but later.
	handOver(why reason) bool
	takeBack(why reason)
	// notify sends the kernel a message that is no reply, whole. It may
	// take as long as requests in flight do.
	notify(msg []byte) error
	// close gives the connection up; the file system is dead if it is still
	// mounted. Call it when serve has returned, or instead of serve.
	close() error
}

// reason is what takes a handler long.
type reason int

const (
	// forDevice: it waits for the disk. How many may is bounded.
	forDevice reason = iota
	// forCopy: it moves much data. As many as there are processors may.
	forCopy
	// forKernel: it waits until the kernel has got replies to other requests.
	// There is always one more thread for those.
	forKernel
)
