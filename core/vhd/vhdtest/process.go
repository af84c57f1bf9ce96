package vhdtest

import (
	"errors"
	"sync"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// errKilled is what the calls of a dead process return, to nobody.
var errKilled = errors.New("the process was killed")

// process is the storage as one process has it: when that is killed, its calls
// come to nothing and its files are closed, locks included, while what it
// wrote stays in the page cache.
type process struct {
	storage.FS // for the engine

	// mu guards what follows.
	mu    sync.Mutex
	files []storage.File // all that were opened
	dead  bool
	left  int // calls that change something until it dies; below 0: it lives on
}

func newProcess(below storage.FS) *process {
	p := &process{left: -1}
	p.FS = Intercept(below, p.call)
	return p
}

func (p *process) call(c *Call, do func() error) error {
	if !p.lives(c) {
		return errKilled
	}
	err := do()
	if err == nil && (c.Op == storagetest.OpOpen || c.Op == storagetest.OpCreate) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.files = append(p.files, c.File)
	}
	return err
}

// lives tells whether the call is made still.
func (p *process) lives(c *Call) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left >= 0 && c.Changes() {
		p.left--
		p.dead = p.dead || p.left < 0
	}
	return !p.dead
}

// dieAfter lets n more calls that change something through.
func (p *process) dieAfter(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = n
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// kill ends it, if it has not ended.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	for _, f := range p.files {
		_ = f.Close() // it may have been closed in time
	}
}
