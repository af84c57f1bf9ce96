package blktap

import (
	"runtime"
	"time"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

const (
	// nowaitMax is the longest job, in bytes, that is tried without a worker: a
	// longer one is better copied beside the ring's goroutine, where there is a
	// processor for that.
	nowaitMax = 16 << 10
	// nowaitSkip bounds how many jobs are not tried after some had to wait.
	nowaitSkip = 63
	// nowaitSlow is from when on a job had to wait that did not say so: a write
	// for a page cache that is full, say.
	nowaitSlow = 300 * time.Microsecond
	// gatherMax is up to which length, in bytes, requests that were joined are
	// copied to become one call of the device: one of a page cache costs about as
	// much as a copy of that length.
	gatherMax = 16 << 10
)

// nowait decides which jobs of one kind are tried without a worker. A worker
// costs two switches of thread, several times what it takes to copy a page; a
// try for what is not in memory is for nothing.
type nowait struct {
	skip int // jobs not to be tried
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

// prompt does jobs in the ring's own goroutine that need not wait.
type prompt struct {
	worker *worker
	max    int64 // bytes of a job
	reads  nowait
	writes nowait
}

// newPrompt has longer jobs wait for one another where there is but one
// processor: to hand them to a worker would make none of them faster.
func newPrompt(s *server) prompt {
	p := prompt{max: nowaitMax, worker: newWorker(s)}
	if runtime.NumCPU() == 1 {
		p.max = mergeMax
	}
	p.worker.read = func(b []byte, off int64) (int, error) { return blockdev.ReadAtNowait(s.dev, b, off) }
	p.worker.write = func(b []byte, off int64) (int, error) { return blockdev.WriteAtNowait(s.dev, b, off) }
	return p
}

// does does a job, if that is worth a try and has to wait for nothing, and tells
// whether it did. What fails in any way is for a worker to do again, all of it.
func (p *prompt) does(j *job) bool {
	if j.task != taskRequests || j.n > p.max {
		return false
	}
	kind := &p.reads
	switch j.op {
	case Read:
	case Write:
		kind = &p.writes
	default:
		return false
	}
	if !kind.tries() {
		return false
	}
	began := p.worker.s.now()
	err := p.try(j)
	kind.learn(err == nil && p.worker.s.now()-began < int64(nowaitSlow))
	return err == nil
}

// try does a job: by a call for each request where they are long, and so without
// a copy.
func (p *prompt) try(j *job) error {
	if j.count > 1 && j.n <= int64(j.count)*gatherMax {
		return p.worker.merged(j)
	}
	for e := j.first; e != nil; e = e.next {
		if err := p.worker.single(e); err != nil {
			return err
		}
	}
	return nil
}
