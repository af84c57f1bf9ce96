package storagetest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// lockable is a second open of the file "a", as what access needs it.
func (s suite) lockable(t *testing.T, access storage.Access) storage.File {
	t.Helper()
	flag := storage.Flag(0)
	if access == storage.Exclusive {
		flag = storage.ReadWrite
	}
	return s.open(t, "a", flag)
}

func lock(t *testing.T, f storage.File, access storage.Access) {
	t.Helper()
	if err := f.Lock(access); err != nil {
		t.Fatal(err)
	}
}

func testLocks(t *testing.T, s suite) {
	s.create(t, "a", pattern(100, 1))
	for _, held := range []storage.Access{storage.Shared, storage.Exclusive} {
		for _, asked := range []storage.Access{storage.Shared, storage.Exclusive} {
			t.Run(fmt.Sprintf("held=%v/asked=%v", held, asked), func(t *testing.T) {
				holder, second := s.lockable(t, held), s.lockable(t, asked)
				lock(t, holder, held)
				err := second.Lock(asked)
				if held == storage.Shared && asked == storage.Shared {
					if err != nil {
						t.Errorf("readers don't share: %v", err)
					}
					return
				}
				expectError(t, "Lock", err, storage.ErrInUse)
				if err := holder.Close(); err != nil {
					t.Fatal(err)
				}
				lock(t, second, asked)
			})
		}
	}
	// A file without a lock is in nobody's way.
	lock(t, s.lockable(t, storage.Exclusive), storage.Exclusive)
	expectContent(t, s.open(t, "a", 0), pattern(100, 1))
}

func testLockReplaces(t *testing.T, s suite) {
	s.create(t, "a", nil)
	f, reader := s.lockable(t, storage.Exclusive), s.lockable(t, storage.Shared)
	lock(t, f, storage.Exclusive)
	lock(t, f, storage.Exclusive)
	lock(t, f, storage.Shared)
	lock(t, reader, storage.Shared)
	expectError(t, "a writer among readers", f.Lock(storage.Exclusive), storage.ErrInUse)

	// What was refused left the lock before it, and nothing of itself.
	lock(t, s.lockable(t, storage.Shared), storage.Shared)
	expectError(t, "another", s.lockable(t, storage.Exclusive).Lock(storage.Exclusive), storage.ErrInUse)
}

func testCloseUnlocks(t *testing.T, s suite) {
	s.create(t, "a", nil)
	for range 50 {
		f := s.lockable(t, storage.Exclusive)
		lock(t, f, storage.Exclusive)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func testLockError(t *testing.T, s suite) {
	s.create(t, "a", nil)
	lock(t, s.lockable(t, storage.Exclusive), storage.Exclusive)
	for _, access := range []storage.Access{storage.Shared, storage.Exclusive} {
		var inUse *storage.InUseError
		if err := s.lockable(t, access).Lock(access); !errors.As(err, &inUse) {
			t.Fatalf("error %v", err)
		}
		if inUse.Name != s.path("a") || inUse.Access != access {
			t.Errorf("%q for access %v is refused, not %q for %v", inUse.Name, inUse.Access, s.path("a"), access)
		}
		self := func(h storage.Holder) bool { return h.PID == os.Getpid() && h.Name != "" }
		if !slices.ContainsFunc(inUse.Holders, self) {
			t.Errorf("this process isn't among the holders: %v", inUse.Holders)
		}
	}
}
