package fuse

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// relieveAfter is how long all threads may be busy with the requests that
	// they have before one more takes over, at least; twice that at most.
	relieveAfter = time.Millisecond
	// watchIdle is how many times relieveAfter the watcher sees nothing to do
	// before it sleeps until the next request.
	watchIdle = 50
)

// pool decides which threads of a transport take requests.
//
// Each thread that sleeps for the next request makes every client's wake-up
// colder and dearer: few are kept doing that, one for each two processors, and
// the others are parked, the last to park being the first to go on. But a
// thread that waits for a disk serves nobody. So one that knows that it will
// take long hands over, and a watcher relieves those that did not know.
type pool struct {
	readers int    // how many threads take requests while none takes long
	max     int    // how many threads there may be, forKernel ones aside
	copies  int    // how many may be busy forCopy at a time
	start   func() // starts a thread, which calls next first

	active  atomic.Int32  // threads that take requests or answer quickly; changed under mu but for takeBack
	reading atomic.Int32  // of these, how many sleep for a request
	taken   atomic.Uint64 // requests so far
	resting atomic.Bool   // the watcher sleeps until a request comes
	stopped atomic.Bool   // set under mu
	wake    chan struct{} // to the watcher: a request came, or the end

	// mu guards the fields below. It is a leaf.
	mu      sync.Mutex
	total   int // threads
	copying int // threads busy forCopy
	parked  []chan struct{}
}

func newPool(readers, processors, limit int) *pool {
	return &pool{readers: readers, max: max(limit, readers), copies: max(1, processors-1), wake: make(chan struct{}, 1)}
}

// run starts the first threads and watches until stop.
func (p *pool) run() {
	p.mu.Lock()
	for range p.readers {
		p.add()
	}
	p.mu.Unlock()
	p.watch()
}

// add starts one more thread. p.mu is held.
func (p *pool) add() {
	p.total++
	p.active.Add(1)
	p.start()
}

// next is called by a thread before it takes a request. It parks the thread
// while enough others are there, and returns false when the thread must end.
func (p *pool) next() bool {
	if int(p.active.Load()) > p.readers {
		p.park()
	}
	p.reading.Add(1)
	return !p.stopped.Load()
}

// took is called by a thread that took a request, or failed to.
func (p *pool) took() {
	p.reading.Add(-1)
	p.taken.Add(1)
	if p.resting.Load() && p.resting.CompareAndSwap(true, false) {
		p.nudge()
	}
}

func (p *pool) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pool) park() {
	p.mu.Lock()
	if int(p.active.Load()) <= p.readers || p.stopped.Load() {
		p.mu.Unlock()
		return
	}
	p.active.Add(-1)
	wake := make(chan struct{})
	p.parked = append(p.parked, wake)
	p.mu.Unlock()
	<-wake
}

// handOver takes the calling thread out of those that take requests. If it was
// the last, another goes on: a parked one, or a new one. It returns false if
// too many are busy for that reason; then nothing has changed.
func (p *pool) handOver(why reason) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if why == forCopy {
		if p.copying == p.copies {
			return false
		}
		p.copying++
	}
	if p.active.Add(-1) == 0 {
		p.replace(why == forKernel)
	}
	return true
}

// takeBack puts the calling thread back.
func (p *pool) takeBack(why reason) {
	if why == forCopy {
		p.mu.Lock()
		p.copying--
		p.mu.Unlock()
	}
	p.active.Add(1)
}

// replace lets one more thread take requests; beyond the limit only if it
// must. p.mu is held.
func (p *pool) replace(must bool) {
	last := len(p.parked) - 1
	switch {
	case p.stopped.Load():
	case last >= 0:
		p.active.Add(1)
		close(p.parked[last])
		p.parked = p.parked[:last]
	case must || p.total < p.max:
		p.add()
	}
}

// watch looks every relieveAfter whether all threads are busy with what they
// were busy with before, and lets one more take requests if so.
func (p *pool) watch() {
	tick := time.NewTicker(relieveAfter)
	defer tick.Stop()
	for seen, idle := uint64(0), 0; !p.stopped.Load(); {
		taken := p.taken.Load()
		switch {
		case taken != seen:
			seen, idle = taken, 0
		case p.reading.Load() > 0:
			idle++
		default:
			p.mu.Lock()
			p.replace(false)
			p.mu.Unlock()
		}
		if idle >= watchIdle {
			p.rest(tick)
			idle = 0
			continue
		}
		<-tick.C
	}
}

// rest sleeps until a request comes.
func (p *pool) rest(tick *time.Ticker) {
	tick.Stop()
	p.resting.Store(true)
	if !p.stopped.Load() {
		<-p.wake
	}
	tick.Reset(relieveAfter)
}

// stop ends all threads: parked ones now, the others before their next
// request.
func (p *pool) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped.Store(true)
	for _, wake := range p.parked {
		close(wake)
	}
	p.parked = nil
	p.nudge()
}
