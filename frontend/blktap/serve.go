package blktap

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

const (
	// Where the module says again and again that there is something, and there
	// is nothing, the ring is left alone for backoffMin, then twice that, up to
	// backoffMax. openxt's module says so as long as any request is in flight.
	backoffMin = 50 * time.Microsecond
	backoffMax = 800 * time.Microsecond
	// closeRetry is how often a removal is tried that waits for the last
	// user, beside each time that the module wakes us: some modules tell of a
	// close before it is done.
	closeRetry = time.Second
	// yieldAfter is how long the ring's goroutine does without Go's scheduler, to
	// which one that only makes system calls seems to run on and on: from 10 ms
	// on its monitor takes the processor away in every call, and looks again
	// each 20 µs as long as it finds one, which costs a tenth of all time.
	yieldAfter = 5 * time.Millisecond
)

// lateAnswer is the response to a request whose id was in flight. It waits
// until the one in flight is answered: the module would take the pages from
// under that.
type lateAnswer struct {
	id uint64
	op Op
}

// removal asks for the block device to be removed if nobody has it open.
type removal struct {
	reply chan error // has room for the answer
}

// server serves a ring. Its fields without a comment belong to the goroutine
// of main; workers have the entries of the jobs that they were given.
type server struct {
	port     Port  // Wake is for all
	ring     *ring // the segment pages of a job's entries are its worker's
	dev      blockdev.Device
	info     deviceInfo
	log      *slog.Logger
	onPause  func() error // called by a worker
	onResume func() error // likewise

	work chan *job // to workers; has room for all
	done chan *job // from workers; has room for all
	// completed counts the jobs that were put in done, and asleep says that
	// main waits, or is about to: a worker adds to the first and then looks at
	// the second, main the other way round, so that no job is slept over.
	completed atomic.Uint32
	asleep    atomic.Bool
	stats     counters

	removals chan *removal // from Session
	closing  atomic.Bool   // remove the block device as soon as nobody has it open

	start     time.Time
	features  features
	entries   [ringSlots]entry // by id
	inFlight  int              // of entries
	collected uint32           // of completed
	free      []*job
	batch     []*job // made and not yet dispatched
	late      []lateAnswer
	answers   int // written and not yet published

	unstable []*job // writes that are done, where the ring has no flush
	flushing []*job // those that a flush is under way for

	message     message // not handled yet
	controlling bool    // a worker handles one
	removal     *removal
	shown       bool // the block device was made
	freed       bool // somebody else frees the minor
	removed     bool
	prompt      prompt
	idle        int   // passes in a row that were woken for nothing
	rested      bool  // the last wait left the ring alone
	lying       bool  // the indexes make no sense
	yielded     int64 // when, in ns since the start
	complaints  limiter
}

func newServer(port Port, dev blockdev.Device, info deviceInfo, o *Options) (*server, error) {
	r, err := newRing(port.Memory())
	if err != nil {
		return nil, err
	}
	s := &server{
		port: port, ring: r, dev: dev, info: info, log: o.Log, onPause: o.Pause, onResume: o.Resume,
		work:     make(chan *job, jobCount),
		done:     make(chan *job, jobCount),
		removals: make(chan *removal, 1),
		start:    time.Now(),
		free:     make([]*job, 0, jobCount),
		batch:    make([]*job, 0, jobCount),
		late:     make([]lateAnswer, 0, ringSlots),
		unstable: make([]*job, 0, jobCount),
		flushing: make([]*job, 0, jobCount),
	}
	for range jobCount {
		s.free = append(s.free, new(job))
	}
	s.prompt = newPrompt(s)
	return s, nil
}

// main makes the block device, tells created, and serves it until it was
// removed, or the module fails. It makes all system calls of the ring: one
// module has no lock between its poll and its RESPOND. It closes the port.
func (s *server) main(created chan<- error) error {
	s.port.Bind()
	debug.SetPanicOnFault(true) // of this goroutine; see fault
	var workers sync.WaitGroup
	for range workerCount {
		w := newWorker(s)
		workers.Go(w.run)
	}
	var err error
	s.features, err = createDevice(s.port, s.info)
	s.shown = err == nil
	created <- err
	for err == nil && !s.removed {
		err = s.pass()
	}
	// Pages are there until the port is closed; workers may still use them.
	close(s.work)
	workers.Wait()
	if s.removal != nil {
		s.removal.reply <- err
	}
	if closeErr := s.port.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("close ring: %w", closeErr))
	}
	return err
}

// pass is one round: take requests, answer what is done, and wait for more.
func (s *server) pass() error {
	progress := s.take()
	s.dispatch()
	progress = s.collect() || progress
	s.flushWrites()
	if err := s.respond(); err != nil {
		return err
	}
	s.control()
	if err := s.remove(); err != nil || s.removed {
		return err
	}
	if progress {
		s.idle = 0
	}
	return s.wait()
}

// take copies all requests off the ring and makes jobs of them. It tells
// whether there were any.
func (s *server) take() bool {
	if s.removal != nil {
		return false // first, none may be in flight
	}
	n, err := s.ring.pending()
	if (err != nil) != s.lying {
		s.lying = err != nil
		if s.lying {
			s.log.Error("blktap: the ring is not read until it makes sense", "error", err)
		}
	}
	if n == 0 {
		return false
	}
	now := s.now()
	var open *job
	for range n {
		open = s.takeOne(open, now)
	}
	return true
}

// takeOne takes a request and returns the job that the next one may join.
func (s *server) takeOne(open *job, now int64) *job {
	var q request
	s.ring.take(&q)
	err := q.check(s.info.capacity)
	taken := q.id < ringSlots && s.entries[q.id].taken
	switch {
	case err != nil:
	case taken:
		err = fmt.Errorf("%w %d: in flight already", errID, q.id)
	case q.op == Trim && !s.features.trim:
		err = errNotSupported
	default:
		return s.accept(&q, open, now)
	}
	s.refuse(&q, taken, err)
	return open
}

// refuse answers a request that makes no sense, at once or when the one whose
// id it has was answered.
func (s *server) refuse(q *request, taken bool, err error) {
	s.stats.invalid.Add(1)
	if s.complaints.allow(time.Now()) {
		s.log.Warn("blktap: invalid request", "id", q.id, "operation", q.op.String(), "error", err)
	}
	if taken {
		s.late = append(s.late, lateAnswer{q.id, q.op})
		return
	}
	s.ring.respond(q.id, q.op, statusOf(err))
	s.answers++
}

// accept puts a request that was checked in flight.
func (s *server) accept(q *request, open *job, now int64) *job {
	e := &s.entries[q.id]
	*e = entry{request: *q, taken: true, at: now}
	s.inFlight++
	c := &s.stats.op[q.op]
	c.taken.Add(1)
	if open != nil && open.joins(e) {
		open.add(e)
		c.merges.Add(1)
		return open
	}
	j := s.newJob(taskRequests)
	j.op = q.op
	j.add(e)
	s.batch = append(s.batch, j)
	return j
}

// newJob takes a free job: there is one for each use.
func (s *server) newJob(t task) *job {
	last := len(s.free) - 1
	j := s.free[last]
	s.free = s.free[:last]
	*j = job{task: t}
	return j
}

// dispatch does what is quickly done, and gives the rest to workers.
func (s *server) dispatch() {
	for _, j := range s.batch {
		if s.prompt.does(j) {
			s.finish(j)
		} else {
			s.work <- j
		}
	}
	s.batch = s.batch[:0]
}

// collect takes what workers have done. It tells whether there was anything.
func (s *server) collect() bool {
	for found := false; ; found = true {
		select {
		case j := <-s.done:
			s.collected++
			s.finish(j)
		default:
			return found
		}
	}
}

// finish is what follows a job.
func (s *server) finish(j *job) {
	switch j.task {
	case taskRequests:
		if j.op == Write && !s.features.flush {
			s.unstable = append(s.unstable, j)
			return
		}
		s.answer(j, nil)
	case taskWriteFlush:
		for _, w := range s.flushing {
			s.answer(w, j.err)
		}
		s.free = append(s.free, s.flushing...)
		s.flushing = s.flushing[:0]
	case taskPause, taskResume:
		s.controlled(j)
	}
	s.free = append(s.free, j)
}

// flushWrites makes writes stable that are done and not answered, where the
// guest has no way to ask for it: all of them by one flush, and those that are
// done meanwhile by the next.
func (s *server) flushWrites() {
	if len(s.unstable) == 0 || len(s.flushing) > 0 {
		return
	}
	s.unstable, s.flushing = s.flushing, s.unstable
	s.stats.writeFlushes.Add(1)
	s.batch = append(s.batch, s.newJob(taskWriteFlush))
	s.dispatch()
}

// answer writes the responses of a job. A failed flush fails the writes that
// it was for.
func (s *server) answer(j *job, flushErr error) {
	now := s.now()
	for e := j.first; e != nil; e = e.next {
		err := e.err
		if err == nil {
			err = flushErr
		}
		status := statusOf(err)
		if err != nil && s.complaints.allow(time.Now()) {
			s.log.Error("blktap: request failed", "operation", e.op.String(), "sector", e.sector, "sectors", e.sectors(), "error", err)
		}
		s.stats.op[e.op].answer(e.sectors()*sectorSize, status, time.Duration(now-e.at))
		s.ring.respond(e.id, e.op, status)
		s.answers++
		e.taken = false
		s.inFlight--
		s.answerLate(e.id)
	}
}

// answerLate refuses what came under an id while that was in flight.
func (s *server) answerLate(id uint64) {
	keep := s.late[:0]
	for _, l := range s.late {
		if l.id != id {
			keep = append(keep, l)
			continue
		}
		s.ring.respond(l.id, l.op, statusError)
		s.answers++
	}
	s.late = keep
}

// respond hands the responses to the module. From here on, the pages of these
// requests are gone.
func (s *server) respond() error {
	if s.answers == 0 {
		return nil
	}
	s.answers = 0
	s.ring.publish()
	if err := s.port.Respond(); err != nil {
		return fmt.Errorf("respond: %w", err)
	}
	return nil
}

// wait sleeps until something may be there to do.
func (s *server) wait() error {
	on, timeout := EventRing|EventWake, time.Duration(-1)
	rest := s.idle > 0 && !s.rested
	switch {
	case s.removal != nil:
		on = EventWake
	case rest:
		on, timeout = EventWake, min(backoffMin<<min(s.idle-1, 8), backoffMax)
	case s.closing.Load():
		timeout = closeRetry
	}
	s.rested = rest
	s.yield()
	s.asleep.Store(true)
	if s.completed.Load() != s.collected {
		timeout = 0 // it came before the flag, and nobody will wake us
	}
	got, err := s.port.Wait(on, timeout)
	s.asleep.Store(false)
	if err != nil && !passes(err) {
		return fmt.Errorf("wait for the ring: %w", err)
	}
	if got&EventRing != 0 || err != nil {
		s.idle++ // unless the next pass finds something
	}
	return nil
}

// yield lets Go's scheduler see this goroutine, every now and then.
func (s *server) yield() {
	if now := s.now(); now-s.yielded >= int64(yieldAfter) {
		s.yielded = now
		runtime.Gosched()
	}
}

// passes tells whether a poll may go better the next time.
func passes(err error) bool {
	return errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM)
}

// now is the time since the server began, in nanoseconds.
func (s *server) now() int64 { return int64(time.Since(s.start)) }
