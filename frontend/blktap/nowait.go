package blktap

import "github.com/vhdmount/vhdmount/core/io/blockdev"

const (
	// nowaitMax is the longest read, in bytes, that is tried without a worker:
	// a longer one is better copied beside the ring's goroutine.
	nowaitMax = 16 << 10
	// nowaitSkip bounds how many reads are not tried after some had to wait.
	nowaitSkip = 63
)

// nowait decides which reads are tried without a worker. A worker costs two
// switches of thread, several times what it takes to copy a page; a try for
// data that is not in memory is for nothing.
type nowait struct {
	skip int // reads not to be tried
	cost int // what skip becomes if the next try is for nothing
}

func (n *nowait) tries() bool {
	if n.skip > 0 {
		n.skip--
		return false
	}
	return true
}

func (n *nowait) learn(hit bool) {
	if hit {
		n.cost = 0
		return
	}
	n.cost = min(2*n.cost+1, nowaitSkip)
	n.skip = n.cost
}

// readsNow does a lone read whose data is in memory, and tells whether it did.
// What fails in any way is for a worker to do again.
func (s *server) readsNow(j *job) bool {
	if s.reader == nil || j.task != taskRequests || j.op != Read || j.count > 1 || j.n > nowaitMax ||
		!j.first.contiguous() || !s.nowait.tries() {
		return false
	}
	err := s.readNow(j)
	s.nowait.learn(err == nil)
	return err == nil
}

func (s *server) readNow(j *job) (err error) {
	defer s.fault(&err)
	_, err = s.reader.ReadAtNowait(s.ring.run(&j.first.request), j.off)
	return err
}

// nowaitReader is dev as one that is able to read without waiting, or nil.
func nowaitReader(dev blockdev.Device) blockdev.NowaitReader {
	r, _ := dev.(blockdev.NowaitReader)
	return r
}
