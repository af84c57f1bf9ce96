package fuse

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend"
)

// attempts counts tries to unmount, of which the first busy ones are refused.
type attempts struct{ made, busy int }

func (a *attempts) try() error {
	if a.made++; a.made <= a.busy {
		return unix.EBUSY
	}
	return nil
}

func nobody() []string { return nil }

func TestADiskThatNobodyHoldsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &attempts{busy: 3}
		if who, err := retryBusy(t.Context(), a.try, nobody); err != nil || who != nil || a.made != 4 {
			t.Errorf("%q, %v after %d attempts", who, err, a.made)
		}
		a = &attempts{busy: 1 << 30}
		start := time.Now()
		if who, err := retryBusy(t.Context(), a.try, nobody); !errors.Is(err, unix.EBUSY) || who != nil {
			t.Errorf("by whom nobody sees: %q, %v", who, err)
		}
		if took := time.Since(start); took < busyPatience || took > 2*busyPatience {
			t.Errorf("it took %v", took)
		}
	})
}

func TestADiskThatSomebodyHoldsIsRefusedAtOnce(t *testing.T) {
	a := &attempts{busy: 1 << 30}
	who, err := retryBusy(t.Context(), a.try, func() []string { return []string{"less (pid 17)"} })
	if !errors.Is(err, unix.EBUSY) || !slices.Equal(who, []string{"less (pid 17)"}) || a.made != 1 {
		t.Errorf("%q, %v after %d attempts", who, err, a.made)
	}
}

func TestOtherFailuresAreNotTriedAgain(t *testing.T) {
	tries := 0
	_, err := retryBusy(t.Context(), func() error { tries++; return unix.EINVAL }, nobody)
	if !errors.Is(err, unix.EINVAL) || tries != 1 {
		t.Errorf("%v after %d attempts", err, tries)
	}
}

func TestTryingAgainEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := &attempts{busy: 1 << 30}
	if _, err := retryBusy(ctx, a.try, nobody); !errors.Is(err, unix.EBUSY) || a.made != 1 {
		t.Errorf("%v after %d attempts", err, a.made)
	}
}

// TestDetachOfADiskThatIsHeldUnseen: a descriptor on its way through a socket
// is in no process.
func TestDetachOfADiskThatIsHeldUnseen(t *testing.T) {
	s := attach(t, blockdev.NewMemory(1<<20), Options{})
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := open(t, s.Path(), os.O_RDONLY)
	err = unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(int(f.Fd())), nil, 0)
	f.Close()
	if err != nil {
		t.Error(err)
	}
	if err := s.Detach(t.Context()); !errors.Is(err, frontend.ErrBusy) || err.Error() != s.(*session).mount.point+": "+frontend.ErrBusy.Error() {
		t.Error("Detach:", err)
	}
	unix.Close(pair[0])
	unix.Close(pair[1])
	if err := s.Detach(t.Context()); err != nil {
		t.Error("Detach when it is let go:", err)
	}
}
