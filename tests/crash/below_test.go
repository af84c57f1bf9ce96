package crash

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

var pause = flag.Duration("pause", 3*time.Second, "how long a server is stopped")

// TestTroubleBelowLosesNothingThatWasSynced: whatever becomes of a server or of
// what is below it while programs write, they get the errors that say so; what
// was synced is there; the mount lives on where it can; and unmount and list
// tell the truth.
func TestTroubleBelowLosesNothingThatWasSynced(t *testing.T) {
	for i, tr := range troubles {
		for _, k := range troubledKinds(i) {
			t.Run(tr.name+"/"+k.name, func(t *testing.T) {
				if tr.name != nameOfStopped {
					t.Parallel()
				}
				harness.Fuse(t)
				harness.QEMU(t, "qemu-img")
				b := harness.New(t)
				dir := "."
				var fs *harness.FileSystem
				if tr.size > 0 {
					fs = b.NewFileSystem("fs", tr.on, tr.size)
					dir = fs.Dir
				}
				d := newDisk(t, b, k, dir)
				made := tr.make(t, d, fs)
				before, n := d.syncs(), rounds(*kills, len(troubles)*len(troubledKinds(i)))
				if made.most > 0 {
					n = min(n, made.most)
				}
				for round := range n {
					kill, direct := round%2 == 0, (round+round/2+i)%2 == 1 // all four in as many rounds
					d.past(t, direct, made.image)
					d.suffer(t, made, kill)
					d.verify(t)
					if d.count(ends[kill]); t.Failed() {
						t.Logf("in round %d: %s %v", round, ends[kill], d.flags)
						return
					}
				}
				t.Logf("rounds %v, %d fsyncs, %d calls that failed", d.rounds, d.syncs()-before, d.refused())
				if d.syncs() == before || len(made.seen) > 0 && d.refused() == 0 {
					t.Error("nothing was tested")
				}
			})
		}
	}
}

// ends are how a round of trouble ends, by whether the server is killed.
var ends = map[bool]string{true: "killed", false: "unmounted"}

// troubledKinds are the kinds of image for the i-th trouble: with small blocks,
// so that most writes allocate; one of two, unless many servers are killed.
func troubledKinds(i int) []kind {
	small := []kind{kinds[1], kinds[4]}
	if *kills < 100 {
		return small[i%2:][:1]
	}
	return small
}

// suffer has the programs write through a time of trouble, at the end of which
// the server is killed, or unmounts.
func (d *disk) suffer(t *testing.T, tr trouble, kill bool) {
	t.Helper()
	m := d.b.Mount(tr.image, append(d.flags, tr.flags...)...)
	pid := m.PID()
	r := d.start(m, tr.seen...)
	d.work(20, 150)
	refused := d.refused()
	tr.begin(pid)
	if len(tr.seen) > 0 {
		d.within(2*time.Second, func() bool { return d.refused() > refused })
	}
	d.between(0, 200*time.Millisecond)
	switch {
	case kill:
		d.kill(t, pid)
		r.wait(t, whenKilled...)
		d.clear(t, m)
	case tr.end != nil:
		tr.end(pid)
		d.workGoesOn(t, r)
		r.end(t)
		m.Unmount()
		d.settle()
	default:
		r.end(t)
		d.giveUp(t, m)
	}
	if kill && tr.end != nil {
		tr.end(pid)
	}
	if tr.after != nil {
		tr.after()
	}
}

// giveUp checks a disk that can no longer be written, and takes it away: with
// what is not stable, unless unmount says that all is.
func (d *disk) giveUp(t *testing.T, m *harness.Mount) {
	t.Helper()
	pid := m.PID()
	f := m.Open(os.O_RDWR)
	if err := f.Sync(); !errors.Is(err, unix.EIO) {
		t.Errorf("fsync of a disk that can't be written: %v; want EIO", err)
	}
	if _, err := f.WriteAt(harness.Random(1, sectorSize), 0); !isOneOf(err, writeErrors) {
		t.Errorf("a write to it: %v; want EROFS or EIO", err)
	}
	if list := d.b.List(); len(list) != 1 || list[0].State == "dead" {
		t.Errorf("the list: %+v; want it shown still", list)
	}
	check(t, f.Close())
	if r := d.b.Unmount(m.Point); r.Code == 0 || !strings.Contains(r.Stderr, "--lazy") {
		t.Errorf("unmount: %+v; want it refused, with --lazy named", r)
	}
	if r := d.b.Unmount("--lazy", m.Point); r.Stderr == "" {
		t.Errorf("unmount --lazy says nothing of what it lost")
	}
	d.b.AwaitEnd(pid)
	d.b.CheckGone(m.Point)
}
