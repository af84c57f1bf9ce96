package crash

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

const (
	diskSectors = 32 << 20 / sectorSize
	diskSize    = "32M"
	writers     = 2
)

// kind is a sort of image to write to.
type kind struct {
	name         string
	differencing bool
	flags        []string // of create, or snapshot
}

var kinds = []kind{
	{"dynamic", false, nil},
	{"dynamic, small blocks", false, smallBlocks},
	{"fixed", false, []string{"--type", "fixed"}},
	{"differencing", true, nil},
	{"differencing, small blocks", true, smallBlocks},
}

// smallBlocks have most writes allocate.
var smallBlocks = []string{"--block-size", "16K"}

// disk is an image that programs write to, and whose servers are killed.
type disk struct {
	b        *harness.Box
	image    string   // its file
	chain    []string // that file and those of its parents
	programs []*writer
	random   *rand.Rand
	flags    []string // of mount, for this round: see past
	rounds   tally
}

// tally is how many rounds there were of each sort.
type tally map[string]int

// past has the servers of this round open their images past the page cache, if
// that is its turn and the file system can. Another program tries: this process
// may be the one that shows the image, and could not fork with it open.
func (d *disk) past(t *testing.T, turn bool, image string) {
	t.Helper()
	if d.flags = nil; !turn {
		return
	}
	if r := d.b.Try("dd", "if="+image, "of=/dev/null", "bs=4096", "count=1", "iflag=direct"); r.Code != 0 {
		t.Logf("without --direct-io: %s", r.Stderr)
		return
	}
	d.flags = []string{"--direct-io"}
}

// count notes a round.
func (d *disk) count(sort string) { d.rounds[strings.Join(append([]string{sort}, d.flags...), " ")]++ }

// newDisk makes an image in dir, a directory of the box. A differencing one has
// a parent with something in it.
func newDisk(t *testing.T, b *harness.Box, k kind, dir string) *disk {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	d := &disk{b: b, image: filepath.Join(dir, "disk.vhd"), random: rand.New(rand.NewPCG(seed, 0)), rounds: tally{}}
	for i := range int64(writers) {
		d.programs = append(d.programs, newWriter(i*diskSectors/writers, diskSectors/writers, seed+uint64(i)))
	}
	d.chain = []string{b.Path(d.image)}
	if !k.differencing {
		b.OK(append(append([]string{"create"}, k.flags...), diskSize, d.image)...)
		return d
	}
	base := filepath.Join(dir, "base.vhd")
	b.OK("create", diskSize, base)
	m := b.Mount(base)
	f := m.Open(os.O_RDWR)
	for _, w := range d.programs {
		for range 40 {
			check(t, w.step(f))
		}
		check(t, w.sync(f))
	}
	check(t, f.Close())
	m.Unmount()
	b.OK(append(append([]string{"snapshot"}, k.flags...), base, d.image)...)
	d.chain = append(d.chain, b.Path(base))
	return d
}

// run is programs at work on a mounted disk.
type run struct {
	stop   chan struct{}
	group  sync.WaitGroup
	errs   []error      // of each program: what it ended with
	failed atomic.Int64 // how many have ended with an error
}

// start has the programs write to the disk; bears are errors that they are to
// live with.
func (d *disk) start(m *harness.Mount, bears ...syscall.Errno) *run {
	r := &run{stop: make(chan struct{}), errs: make([]error, len(d.programs))}
	for i, w := range d.programs {
		w.bears = bears
		f := m.Open(os.O_RDWR)
		r.group.Go(func() {
			if r.errs[i] = w.run(f, r.stop); r.errs[i] != nil {
				r.failed.Add(1)
			}
			f.Close()
		})
	}
	return r
}

// wait returns when the programs have ended, and fails the test for each that
// met an error that is none of expected.
func (r *run) wait(t *testing.T, expected ...syscall.Errno) {
	t.Helper()
	r.group.Wait()
	for i, err := range r.errs {
		if err != nil && !isOneOf(err, expected) {
			t.Errorf("program %d: %v", i, err)
		}
	}
}

// end stops the programs and waits.
func (r *run) end(t *testing.T) {
	t.Helper()
	close(r.stop)
	r.wait(t)
}

// work lets the programs make some calls, at random between two numbers, and
// then a little more.
func (d *disk) work(least, most int64) {
	end := d.calls() + least + d.random.Int64N(most-least)
	d.within(time.Minute, func() bool { return d.calls() >= end })
	d.between(0, 5*time.Millisecond)
}

// within waits for a condition that may never hold.
func (d *disk) within(limit time.Duration, holds func() bool) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !holds() && time.Now().Before(end); <-tick.C {
	}
}

// calls is how many calls have returned.
func (d *disk) calls() (n int64) {
	for _, w := range d.programs {
		n += w.calls.Load()
	}
	return n
}

// syncs is how many fsyncs have succeeded.
func (d *disk) syncs() (n int64) {
	for _, w := range d.programs {
		n += w.syncs.Load()
	}
	return n
}

// refused is how many calls have failed with an error that was to be borne.
func (d *disk) refused() (n int64) {
	for _, w := range d.programs {
		n += w.refused.Load()
	}
	return n
}

// workGoesOn waits until each program has synced again, twice: the second
// time, all that it waited for was asked for after this call. None may have met
// an error that it doesn't bear.
func (d *disk) workGoesOn(t *testing.T, r *run) {
	t.Helper()
	for _, w := range d.programs {
		before := w.syncs.Load()
		d.b.Eventually("fsync succeeds", func() bool { return w.syncs.Load() >= before+2 || r.failed.Load() > 0 })
	}
	if r.failed.Load() > 0 {
		close(r.stop)
		r.wait(t)
		t.FailNow()
	}
}

// settle notes that all that was acknowledged is stable.
func (d *disk) settle() {
	for _, w := range d.programs {
		w.settle()
	}
}

// between lets the world go on for a while, at random between two times.
func (d *disk) between(least, most time.Duration) {
	<-time.After(least + time.Duration(d.random.Int64N(int64(most-least))))
}

// kill ends a server at once and waits for its end.
func (d *disk) kill(t *testing.T, pid int) {
	t.Helper()
	check(t, unix.Kill(pid, unix.SIGKILL))
	d.b.AwaitEnd(pid)
}

// afterKill is the list after a server was killed. What it was about to start
// has its lock and its socket for a moment still, between fork and exec, and so
// it is taken for one that doesn't answer.
func (d *disk) afterKill() (list []harness.Listed) {
	d.b.Eventually("the list tells a dead server", func() bool {
		list = d.b.List()
		return len(list) != 1 || list[0].State != "not answering"
	})
	return list
}

// clear checks that the mount of a killed server is shown as dead, and that
// unmount takes it away.
func (d *disk) clear(t *testing.T, m *harness.Mount) {
	t.Helper()
	if list := d.afterKill(); len(list) != 1 || list[0].State != "dead" {
		t.Errorf("after the kill the list has %+v", list)
	}
	d.b.OK("unmount", m.Point)
	d.b.CheckGone(m.Point)
}

// verify checks the image as it is, by all who can: check, qemu, a reader that
// is not the engine's, and what the programs know. It is not to be changed by
// that: whoever opens it has nothing to repair.
func (d *disk) verify(t *testing.T) {
	t.Helper()
	before := d.b.Sum(d.image)
	d.b.OK("check", "--bitmaps", "--parents", d.image)
	m := d.b.Mount(d.image, "--read-only")
	shown := d.b.Read(m.Disk)
	for _, w := range d.programs {
		if err := w.verify(bytes.NewReader(shown)); err != nil {
			t.Error(err)
		}
	}
	independent, err := readImages(d.chain...)
	check(t, err)
	if !bytes.Equal(shown, independent) {
		t.Errorf("an independent reader differs at byte %d", firstDifference(shown, independent))
	}
	if len(d.chain) == 1 { // qemu reads no parents
		d.b.Tool("qemu-img", "compare", "-f", "vpc", "-F", "raw", d.image, m.Disk)
	}
	m.Unmount()
	if d.b.Sum(d.image) != before {
		t.Error("reading changed the image")
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
