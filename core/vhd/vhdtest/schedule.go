package vhdtest

import (
	"math/rand/v2"
	"runtime"
	"sync"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// settles is how often the scheduler lets others run before it takes those
// that are waiting for all that will: one more may be held up by a lock that a
// waiting one has.
const settles = 40

// scheduler lets the calls of several goroutines through one at a time, in an
// order that a seed decides. Outside of run all calls pass. The order is the
// same each time as far as goroutines come to their next call in time.
type scheduler struct {
	storage.FS // for the engine

	// mu guards what follows.
	mu      sync.Mutex
	on      bool
	waiting []*turn
	active  int // goroutines of run that have not ended
}

// turn is a call that waits.
type turn struct{ start, end chan struct{} }

func newScheduler(below storage.FS) *scheduler {
	s := &scheduler{}
	s.FS = Intercept(below, s.call)
	return s
}

func (s *scheduler) call(_ *Call, do func() error) error {
	s.mu.Lock()
	if !s.on {
		s.mu.Unlock()
		return do()
	}
	t := &turn{make(chan struct{}), make(chan struct{})}
	s.waiting = append(s.waiting, t)
	s.mu.Unlock()
	<-t.start
	defer close(t.end)
	return do()
}

// run runs the tasks beside one another and returns when all have ended.
func (s *scheduler) run(seed uint64, tasks []func()) {
	r := rand.New(rand.NewPCG(seed, 3))
	s.mu.Lock()
	s.on, s.active = true, len(tasks)
	s.mu.Unlock()
	for _, task := range tasks {
		go func() {
			defer s.leave()
			task()
		}()
	}
	for {
		t, more := s.next(r)
		if !more {
			break
		}
		close(t.start)
		<-t.end
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = false
}

func (s *scheduler) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
}

// next is the call to let through, as soon as one waits and no other comes;
// more is false when all tasks have ended.
func (s *scheduler) next(r *rand.Rand) (t *turn, more bool) {
	for quiet, seen := 0, 0; ; quiet++ {
		s.mu.Lock()
		n := len(s.waiting)
		if s.active == 0 {
			s.mu.Unlock()
			return nil, false
		}
		if n != seen {
			quiet, seen = 0, n
		}
		if n > 0 && (n == s.active || quiet > settles) {
			i := r.IntN(n)
			t := s.waiting[i]
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			s.mu.Unlock()
			return t, true
		}
		s.mu.Unlock()
		runtime.Gosched()
	}
}
