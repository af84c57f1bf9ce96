package fuse

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend"
)

// deputy unmounts for a session, when it is told to.
type deputy struct {
	place   Place
	refuses error
	idle    bool // it says that it unmounted, and didn't
	asked   atomic.Int32
	lazy    atomic.Bool
}

func (d *deputy) Unmount(ctx context.Context, lazy bool) error {
	d.asked.Add(1)
	d.lazy.Store(lazy)
	if d.refuses != nil || d.idle {
		return d.refuses
	}
	return d.place.Unmount(ctx, lazy)
}

func (d *deputy) Uses(context.Context) string { return "the deputy knows who has it open" }

func TestAnotherUnmountsForTheSession(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		s := attach(t, blockdev.NewMemory(1<<20), Options{}).(Delegator)
		d := &deputy{place: s.Place(), refuses: frontend.ErrBusy}
		s.Delegate(d)
		ctx := t.Context()
		if lazy {
			ctx = frontend.WithLazy(ctx)
		}
		if err := s.Detach(ctx); !errors.Is(err, frontend.ErrBusy) || d.lazy.Load() != lazy {
			t.Errorf("lazy=%v: refused by the deputy, asked with lazy=%v: %v", lazy, d.lazy.Load(), err)
		}
		if _, ok, err := mountAt(s.Place().Point); !ok || err != nil {
			t.Errorf("it is gone although the deputy refused, %v", err)
		}
		d.refuses = nil
		if err := s.Detach(ctx); err != nil || d.asked.Load() != 2 {
			t.Errorf("lazy=%v: %v; the deputy was asked %d times", lazy, err, d.asked.Load())
		}
		if err := s.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestTheDeputySaysWhoUsesAHiddenDisk(t *testing.T) {
	s := attach(t, blockdev.NewMemory(1<<20), Options{}).(Delegator)
	s.(*session).patience = time.Millisecond
	d := &deputy{place: s.Place(), idle: true}
	s.Delegate(d)
	err := s.Detach(t.Context())
	if !errors.Is(err, frontend.ErrHidden) || !strings.Contains(err.Error(), "the deputy knows") {
		t.Errorf("error %v", err)
	}
	s.(*session).patience = hiddenPatience
	d.idle = false
}

// TestAPlaceIsOneMount, and not whatever is at its mount point.
func TestAPlaceIsOneMount(t *testing.T) {
	s := attach(t, blockdev.NewMemory(1<<20), Options{}).(Delegator)
	place := s.Place()
	other := place
	other.ID = "0"
	if err := other.Unmount(t.Context(), true); !errors.Is(err, frontend.ErrBusy) || !strings.Contains(err.Error(), "mounted over it") {
		t.Errorf("another mount's place: %v", err)
	}
	if err := place.Unmount(t.Context(), false); err != nil {
		t.Error(err)
	}
	if err := place.Unmount(t.Context(), false); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}
