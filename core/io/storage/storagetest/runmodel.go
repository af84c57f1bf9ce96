package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// testModel runs random programs on a file and on a byte slice.
func testModel(t *testing.T, s suite) {
	for seed := range uint64(20) {
		name := fmt.Sprintf("model%d", seed)
		m := &model{t: t, s: s, name: name, r: rand.New(rand.NewPCG(seed, 0)), f: s.create(t, name, nil)}
		for range 60 {
			m.step()
			if t.Failed() {
				t.Fatalf("seed %d: %s", seed, m.did)
			}
		}
		m.check()
		_ = m.f.Close()
	}
}

// model is a file and what is to be in it.
type model struct {
	t    *testing.T
	s    suite
	name string
	r    *rand.Rand
	f    storage.File
	want []byte
	did  string // the program so far
}

const modelSize = 24 << 10 // bytes; nothing is written past it

// where is a range that begins or ends on a boundary now and then.
func (m *model) where() (off, n int64) {
	off, n = m.r.Int64N(modelSize), m.r.Int64N(6000)+1
	for _, unit := range []int64{512, 4096} {
		if m.r.IntN(3) == 0 {
			off -= off % unit
		}
		if m.r.IntN(3) == 0 {
			n += unit - n%unit
		}
	}
	return off, min(n, modelSize-off)
}

func (m *model) step() {
	off, n := m.where()
	steps := []struct {
		name string
		do   func(off, n int64)
	}{
		{"write", m.write}, {"write", m.write}, {"write", m.write},
		{"read", m.read}, {"read", m.read},
		{"truncate", m.truncate},
		{"allocate", m.allocate},
		{"punch", m.punch}, {"punch", m.punch},
		{"next data", m.nextData},
		{"sync", m.sync},
		{"reopen", m.reopen},
	}
	step := steps[m.r.IntN(len(steps))]
	m.did += fmt.Sprintf("%s %d+%d; ", step.name, off, n)
	step.do(off, n)
}

func (m *model) write(off, n int64) {
	p := pattern(int(n), byte(m.r.Uint32()))
	write(m.t, m.f, p, off)
	m.want = growTo(m.want, off+n)
	copy(m.want[off:], p)
}

func (m *model) read(off, n int64) {
	m.t.Helper()
	p := bytes.Repeat([]byte{0xEE}, int(n))
	got, err := m.f.ReadAt(p, off)
	have := min(n, max(0, int64(len(m.want))-off))
	if int64(got) != have || (err == io.EOF) != (have < n) || err != nil && err != io.EOF {
		m.t.Errorf("ReadAt(%d bytes, %d) of %d = %d, %v", n, off, len(m.want), got, err)
		return
	}
	if have > 0 && !bytes.Equal(p[:have], m.want[off:off+have]) {
		m.t.Errorf("ReadAt(%d bytes, %d): byte %d differs", n, off, firstDifference(p[:have], m.want[off:]))
	}
}

func (m *model) truncate(off, _ int64) {
	if err := m.f.Truncate(off); err != nil {
		m.t.Fatal(err)
	}
	m.want = growTo(m.want[:min(off, int64(len(m.want)))], off)
}

func (m *model) allocate(off, n int64) {
	if supported(m.t, "Allocate", m.f.Allocate(off, n)) {
		m.want = growTo(m.want, off+n)
	}
}

func (m *model) punch(off, n int64) {
	if supported(m.t, "PunchHole", m.f.PunchHole(off, n)) && off < int64(len(m.want)) {
		clear(m.want[off:min(off+n, int64(len(m.want)))])
	}
}

func (m *model) sync(_, _ int64) {
	if err := m.f.Sync(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) reopen(_, _ int64) {
	if err := m.f.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.f = m.s.open(m.t, m.name, storage.ReadWrite)
}

// nextData looks for the first data at or after off: what lies before it is
// zeros.
func (m *model) nextData(off, _ int64) {
	h, ok := m.f.(storage.HoleFinder)
	if !ok {
		return
	}
	start, end, err := h.NextData(off)
	switch {
	case errors.Is(err, io.EOF):
		start = max(off, int64(len(m.want)))
	case err != nil:
		m.t.Fatal(err)
	case start < off || end <= start || end > int64(len(m.want)):
		m.t.Errorf("NextData(%d) of %d bytes = %d, %d", off, len(m.want), start, end)
		return
	}
	for i := off; i < min(start, int64(len(m.want))); i++ {
		if m.want[i] != 0 {
			m.t.Errorf("NextData(%d) = %d, but byte %d is %#x", off, start, i, m.want[i])
			return
		}
	}
}

func (m *model) check() {
	m.t.Helper()
	expectContent(m.t, m.f, m.want)
}
