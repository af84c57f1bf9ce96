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
	// adaptAfter is how many times it looks before it decides whether one
	// thread more or less takes requests.
	adaptAfter = 16
)

// pool decides which threads of a transport take requests.
//
// Each thread that sleeps for the next request makes every client's wake-up
// colder and dearer, and each that is there when many requests wait takes some
// of them: one thread serves a client with a request at a time nearly twice as
// fast as three do, and three serve one with many at a time a fifth faster. So
// a watcher adds threads while all are busy and takes them away while some
// sleep. The others are parked, the last to park being the first to go on.
//
// A thread that waits for a disk serves nobody. One that knows that it will
// take long hands over, and the watcher relieves those that did not know.
type pool struct {
	least, most int    // how many threads take requests, those aside that take long
	max         int    // how many threads there may be, forKernel ones aside
	copies      int    // how many may be busy forCopy at a time
	start       func() // starts a thread, which calls next first

	readers atomic.Int32  // between least and most; changed by the watcher
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

func newPool(least, most, processors, limit int) *pool {
	p := &pool{least: least, most: most, max: max(limit, most), copies: processors, wake: make(chan struct{}, 1)}
	p.readers.Store(int32(least))
	return p
}

// run starts the first threads and watches until stop.
func (p *pool) run() {
	p.mu.Lock()
	for range p.least {
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
	if p.active.Load() > p.readers.Load() {
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
	if p.active.Load() <= p.readers.Load() || p.stopped.Load() {
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

// watch looks every relieveAfter what the threads do until stop.
func (p *pool) watch() {
	tick := time.NewTicker(relieveAfter)
	defer tick.Stop()
	var seen uint64
	var idle, looks, busy int
	for !p.stopped.Load() {
		taken, reading := p.taken.Load(), p.reading.Load()
		switch {
		case taken != seen:
			seen, idle = taken, 0
			if reading == 0 {
				busy++
			}
		case reading > 0:
			idle++
		default: // all are busy with what they were busy with
			p.more()
		}
		if looks++; looks == adaptAfter {
			p.adapt(busy)
			looks, busy = 0, 0
		}
		if idle >= watchIdle {
			p.rest(tick)
			idle = 0
			continue
		}
		<-tick.C
	}
}

// more lets one more thread take requests, for as long as others are busy.
func (p *pool) more() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replace(false)
}

// adapt decides, busy of adaptAfter times having seen no thread at rest, how
// many take requests from now on. A client with one request at a time keeps one
// thread busy two thirds of the time, and never two: so a second comes only if
// the first was seen busy each time, and all but the first go if they never
// were.
func (p *pool) adapt(busy int) {
	n := int(p.readers.Load())
	enough := adaptAfter / 2
	if n == 1 {
		enough = adaptAfter
	}
	switch {
	case busy >= enough && n < p.most:
		p.readers.Add(1)
		p.more()
	case busy == 0 && n > p.least:
		p.readers.Add(-1) // one parks before its next request
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
