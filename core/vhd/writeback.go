package vhd

import (
	"sync"
	"time"
)

// Writebacker flushes an image in the background, so that a crash costs no
// more than the last few seconds even where nobody asks for a flush. It is a
// goroutine, from StartWriteback to Stop.
type Writebacker struct {
	stop chan struct{}
	done chan struct{}

	mu  sync.Mutex
	err error // the first failure; guarded by mu
}

// Flusher is what a Writebacker knows of an Image.
type Flusher interface {
	Dirty() bool
	Err() error
	Flush() error
}

// StartWriteback flushes img whenever its metadata has been dirty for interval
// at most. The owner of img stops it before it closes img.
func StartWriteback(img Flusher, interval time.Duration) *Writebacker {
	w := &Writebacker{stop: make(chan struct{}), done: make(chan struct{})}
	go w.loop(img, interval)
	return w
}

func (w *Writebacker) loop(img Flusher, interval time.Duration) {
	defer close(w.done)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-ticker.C:
		}
		if !img.Dirty() || img.Err() != nil {
			continue
		}
		if err := img.Flush(); err != nil {
			w.note(err)
		}
	}
}

func (w *Writebacker) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// Stop ends the flushing, waits for one that is under way, and returns the
// first failure there was. A second call returns the same.
func (w *Writebacker) Stop() error {
	w.mu.Lock()
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.mu.Unlock()
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
