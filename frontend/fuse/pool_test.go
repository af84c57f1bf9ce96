package fuse

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// testPool is a pool whose threads take what is sent to requests and run it.
type testPool struct {
	*pool
	requests chan func()
	threads  sync.WaitGroup
}

func newTestPool(readers, limit int) *testPool {
	return newAdaptivePool(readers, readers, limit)
}

func newAdaptivePool(least, most, limit int) *testPool {
	p := &testPool{pool: newPool(least, most, 2, limit), requests: make(chan func())}
	p.start = func() {
		p.threads.Go(func() {
			for p.next() {
				request, ok := <-p.requests
				p.took()
				if !ok {
					p.stop()
					return
				}
				request()
			}
		})
	}
	p.threads.Go(p.run)
	return p
}

// end is an unmount.
func (p *testPool) end() {
	close(p.requests)
	p.threads.Wait()
}

func (p *testPool) count() (total, parked int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total, len(p.parked)
}

func TestPoolReplacesAThreadThatHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(1, 16)
		disk := make(chan struct{})
		for range 3 {
			p.requests <- func() {
				if p.handOver(forDevice) {
					defer p.takeBack(forDevice)
				}
				<-disk
			}
		}
		answered := false
		p.requests <- func() { answered = true }
		synctest.Wait()
		if total, _ := p.count(); !answered || total != 4 {
			t.Errorf("answered: %v, by %d threads", answered, total)
		}
		close(disk)
		synctest.Wait()
		if total, parked := p.count(); total != 4 || parked != 3 || p.active.Load() != 1 {
			t.Errorf("%d threads, %d parked, %d active once none waits", total, parked, p.active.Load())
		}
		p.end()
	})
}

func TestPoolReusesParkedThreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(1, 16)
		for range 100 {
			p.requests <- func() {
				p.handOver(forDevice)
				p.takeBack(forDevice)
			}
			synctest.Wait()
		}
		if total, parked := p.count(); total != 2 || parked != 1 {
			t.Errorf("%d threads, %d parked after a hundred short waits", total, parked)
		}
		p.end()
	})
}

func TestPoolBoundsThreadsThatWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(1, 3)
		disk := make(chan struct{})
		wait := func(why reason) func() {
			return func() {
				p.handOver(why)
				defer p.takeBack(why)
				<-disk
			}
		}
		for range 3 {
			p.requests <- wait(forDevice)
		}
		synctest.Wait()
		select {
		case p.requests <- func() {}:
			t.Error("a fourth thread")
		default:
		}
		disk <- struct{}{} // one comes back and takes the next
		for range 3 {
			p.requests <- wait(forKernel) // which always finds a thread
		}
		answered := false
		p.requests <- func() { answered = true }
		synctest.Wait()
		if !answered {
			t.Error("threads that wait for other requests left nobody to answer them")
		}
		close(disk)
		p.end()
	})
}

func TestPoolBoundsCopies(t *testing.T) {
	p := newPool(2, 2, 2, 16) // two processors: two may copy
	p.start = func() {}
	p.active.Store(2)
	for i, want := range []bool{true, true, false} {
		if got := p.handOver(forCopy); got != want {
			t.Errorf("copy %d: %v, want %v", i, got, want)
		}
	}
	p.takeBack(forCopy)
	if !p.handOver(forCopy) {
		t.Error("refused after one ended")
	}
}

func TestPoolWatcherRelievesAThreadThatDidNotSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(1, 16)
		disk := make(chan struct{})
		p.requests <- func() { <-disk }
		begin := time.Now()
		p.requests <- func() {} // waits until another thread is there
		if took := time.Since(begin); took > 2*relieveAfter {
			t.Errorf("relieved after %v", took)
		}
		close(disk)
		synctest.Wait()
		if total, parked := p.count(); total != 2 || parked != 1 {
			t.Errorf("%d threads, %d parked", total, parked)
		}
		p.end()
	})
}

func TestPoolWatcherRestsWhileNothingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(1, 16)
		time.Sleep(time.Second)
		synctest.Wait()
		if !p.resting.Load() {
			t.Error("the watcher ticks for nobody")
		}
		disk := make(chan struct{})
		p.requests <- func() { <-disk }
		p.requests <- func() {} // the watcher woke
		close(disk)
		time.Sleep(time.Second)
		p.end() // and ends while it rests
	})
}

func TestPoolKeepsAsManyReadersAsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(3, 1)
		synctest.Wait()
		if total, parked := p.count(); total != 3 || parked != 0 || p.reading.Load() != 3 {
			t.Errorf("%d threads, %d parked, %d reading", total, parked, p.reading.Load())
		}
		p.end()
	})
}

func TestPoolAdaptsToItsClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newAdaptivePool(1, 3, 16)
		for range 1000 { // as fast as they are taken
			p.requests <- func() { time.Sleep(relieveAfter * 3 / 7) } // out of step with the watcher
		}
		synctest.Wait()
		if got := p.readers.Load(); got != 3 {
			t.Errorf("%d threads take requests of a busy client, want all 3", got)
		}
		for range 200 { // one that keeps none busy for long
			p.requests <- func() {}
			time.Sleep(relieveAfter)
		}
		synctest.Wait()
		if got := p.readers.Load(); got != 1 {
			t.Errorf("%d threads take requests of a slow client, want 1", got)
		}
		if got := p.reading.Load(); got != 1 {
			t.Errorf("%d threads sleep for requests, want 1", got)
		}
		p.end()
	})
}
