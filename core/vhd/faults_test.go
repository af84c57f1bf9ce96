package vhd_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
)

// A file that is cut while it is open is an error with the place, not zeros.
func TestReadOfAFileThatWasCut(t *testing.T) {
	r, img := filled(t, 4)
	defer img.Close()
	f, err := r.FS.Open("/disk.vhd", storage.ReadWrite)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(placeOf(t, img, 1)))
	_, err = img.ReadAt(make([]byte, 512), 4096)
	wantError{vhd.ErrCorrupt, []string{"truncated"}}.check(t, err, "/disk.vhd")
	blockIs(t, img, 0, 1)
}

func TestAFailedSyncEndsWriting(t *testing.T) {
	sync := opIs("sync")
	tests := map[string]struct {
		nth int // sync that fails, counted from when the file has grown
		do  func(img *vhd.Image) error
	}{
		"in a flush":           {1, func(img *vhd.Image) error { return img.Flush() }},
		"at a flush's end":     {2, func(img *vhd.Image) error { return img.Flush() }},
		"in Close":             {1, func(img *vhd.Image) error { return img.Close() }},
		"at the end of Close":  {3, func(img *vhd.Image) error { return img.Close() }},
		"after the first sync": {2, func(img *vhd.Image) error { return img.Close() }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := &recorder{FS: storagetest.NewMemory()}
			chainOf(1, 4096)(t, r, 1<<20)
			img := grownImage(t, r, vhd.Options{})
			must(t, write(img, "data", 0))
			failNth(r, test.nth, unix.EIO, sync)
			err := test.do(img)
			if !errors.Is(err, unix.EIO) || !errors.Is(err, blockdev.ErrReadOnly) {
				t.Fatalf("error %v, want EIO and ErrReadOnly", err)
			}
			if !img.ReadOnly() || !errors.Is(img.Err(), unix.EIO) {
				t.Errorf("ReadOnly %v, Err %v", img.ReadOnly(), img.Err())
			}
			if strings.HasSuffix(name, "Close") || strings.HasPrefix(name, "after") {
				return
			}
			refusesWrites(t, img, unix.EIO)
			got := make([]byte, 4)
			if _, err := img.ReadAt(got, 0); err != nil || string(got) != "data" {
				t.Errorf("reading: %q, %v", got, err)
			}
			failNth(r, 1, unix.ENOSPC, everyCall)
			refusesWrites(t, img, unix.EIO) // the first cause stays
			r.before = nil
			if err := img.Close(); !errors.Is(err, unix.EIO) {
				t.Errorf("Close: %v, want the cause", err)
			}
			must(t, img.Close())
			must(t, open(t, r, "/disk.vhd").Close())
		})
	}
}

func TestAFailedSyncOfAGrowingWriteEndsWriting(t *testing.T) {
	r := small(t, true)
	img := open(t, r, "/disk.vhd")
	failNth(r, 1, unix.EIO, opIs("sync"))
	if err := write(img, "data", 0); !errors.Is(err, unix.EIO) || !errors.Is(err, blockdev.ErrReadOnly) {
		t.Fatalf("error %v, want EIO and ErrReadOnly", err)
	}
	refusesWrites(t, img, unix.EIO)
	if err := img.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("Close: %v, want the cause", err)
	}
	r.before = nil
	if got := readBack(t, r); !bytes.Equal(got, noise(64<<10)) {
		t.Error("it doesn't show what it did before")
	}
}

func refusesWrites(t *testing.T, img *vhd.Image, cause error) {
	t.Helper()
	for name, err := range map[string]error{
		"write":   write(img, "x", 0),
		"discard": img.Discard(0, 4096),
		"zeroes":  img.WriteZeroes(0, 4096),
		"flush":   img.Flush(),
	} {
		if !errors.Is(err, cause) || !errors.Is(err, blockdev.ErrReadOnly) {
			t.Errorf("%s: %v, want %v and ErrReadOnly", name, err, cause)
		}
	}
}

// program is a few operations that come to every part of the engine that
// writes: new blocks, growth, parts of sectors, zeros, discards, flushes.
func program(model []byte) []func(img *vhd.Image) error {
	var steps []func(img *vhd.Image) error
	put := func(off int64, n int, fill byte) {
		p := bytes.Repeat([]byte{fill}, n)
		copy(model[off:], p)
		steps = append(steps, func(img *vhd.Image) error { _, err := img.WriteAt(p, off); return err })
	}
	zero := func(off, n int64) {
		clear(model[off:][:n])
		steps = append(steps, func(img *vhd.Image) error { return img.WriteZeroes(off, n) })
	}
	flush := func() { steps = append(steps, (*vhd.Image).Flush) }
	put(0, 4096, 1)
	put(5*4096+100, 1000, 2)
	flush()
	put(5*4096+512, 512, 3)
	put(2*4096, 3*4096, 4)
	zero(0, 4096)
	zero(3*4096+700, 2000)
	flush()
	for b := int64(6); b < 12; b++ {
		put(b*4096+b*10, 4000, byte(b))
	}
	zero(7*4096, 4096)
	flush()
	put(0, 4096, 5)
	put(1*4096, 100, 6)
	zero(6*4096, 4096)
	put(15*4096, 4096, 7)
	return steps
}

// A call to the file that fails fails what it was made for, and nothing else:
// once it succeeds, all is as if it always had.
func TestAFailedCallHarmsNothing(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		for _, errno := range []unix.Errno{unix.ENOSPC, unix.EIO} {
			t.Run(fmt.Sprintf("differencing=%v/%v", differencing, errno), func(t *testing.T) {
				t.Parallel()
				calls := runProgram(t, differencing, errno, fault{})
				before := map[call]int{}
				for _, c := range calls {
					if c.op != "sync" {
						runProgram(t, differencing, errno, fault{c, before[c], 1})
						runProgram(t, differencing, errno, fault{c, before[c], 2})
					}
					before[c]++
				}
				if len(calls) < 30 {
					t.Errorf("the program makes %d calls only", len(calls))
				}
			})
		}
	}
}

// fault is a call that fails so many times, after it was made a few times.
type fault struct {
	call       call
	skip, left int
}

func (f *fault) hits(c call) bool {
	if c != f.call || f.left == 0 {
		return false
	}
	if f.skip > 0 {
		f.skip--
		return false
	}
	f.left--
	return true
}

// runProgram runs program on a new disk where a call fails, and returns the
// calls there were. A step that fails is tried again.
func runProgram(t *testing.T, differencing bool, errno unix.Errno, fails fault) []call {
	t.Helper()
	r := small(t, differencing)
	model := zeros(64 << 10)
	if differencing {
		model = noise(64 << 10)
	}
	steps := program(model)
	img := open(t, r, "/disk.vhd")
	r.take()
	what := fmt.Sprintf("%+v", fails)
	r.before = func(c call) error {
		if fails.hits(c) {
			return asStorage(errno)
		}
		return nil
	}
	for i, step := range steps {
		err := step(img)
		for try := 0; err != nil && try < 3; try++ {
			if errno == unix.ENOSPC && !errors.Is(err, blockdev.ErrNoSpace) {
				t.Errorf("%s: step %d: %v is not ErrNoSpace", what, i, err)
			}
			if !errors.Is(err, errno) || img.Err() != nil || img.ReadOnly() {
				t.Fatalf("%s: step %d: %v, Err %v", what, i, err, img.Err())
			}
			err = step(img)
		}
		must(t, err)
	}
	if !bytes.Equal(readAll(t, img), model) {
		t.Errorf("%s: wrong bytes before Close", what)
	}
	left := fails.left
	closing := img.Close()
	if closing != nil && fails.left == left {
		t.Errorf("%s: Close: %v", what, closing)
	}
	calls := r.changes()
	r.before = nil
	checkClean(t, r, "/disk.vhd")
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: r, ReadOnly: true})
	must(t, err)
	if closing == nil && !bytes.Equal(readAll(t, img), model) {
		t.Errorf("%s: wrong bytes after Close", what)
	}
	must(t, img.Close())
	return calls
}

// asStorage is errno as a file of the operating system reports it.
func asStorage(errno unix.Errno) error {
	if errno == unix.ENOSPC {
		return fmt.Errorf("%w: %w", storage.ErrNoSpace, errno)
	}
	return errno
}

// The kernel tells of a failed write-back once: of a growth and a flush that
// sync at the same time one would see it. The other must fail all the same.
func TestAFailedSyncFailsTheOneBesideIt(t *testing.T) {
	r := small(t, false)
	img := open(t, r, "/disk.vhd")
	flushed, second := make(chan error, 1), make(chan struct{})
	syncs := 0
	r.before = func(c call) error {
		if c.op != "sync" {
			return nil
		}
		if syncs++; syncs > 1 {
			close(second)
			r.before = nil
			return nil
		}
		go func() { flushed <- img.Flush() }()
		select {
		case <-second: // the flush syncs beside this one, and is told nothing
		case <-time.After(50 * time.Millisecond):
		}
		r.before = nil
		return unix.EIO
	}
	if err := write(img, "data", 0); !errors.Is(err, unix.EIO) {
		t.Fatalf("write: %v, want EIO", err)
	}
	if err := <-flushed; !errors.Is(err, unix.EIO) {
		t.Errorf("flush: %v, want EIO", err)
	}
	if err := img.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("close: %v, want EIO", err)
	}
}
