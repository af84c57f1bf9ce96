package crash

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

var kills = flag.Int("kills", 20, "servers to kill, over all kinds of image; trouble below them comes as often, a death around a live snapshot half as often")

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isOneOf(err error, errnos []syscall.Errno) bool {
	for _, errno := range errnos {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// whenKilled are the errors that the users of a disk get when its server dies;
// EIO for a request that it was about to receive.
var whenKilled = []syscall.Errno{unix.ENOTCONN, unix.ECONNABORTED, unix.EIO}

// way is how a server dies.
type way struct {
	name string
	kill func(*disk, *testing.T)
}

// ways come by turns. Their number is odd, so that each comes with --direct-io
// and without.
var ways = []way{
	{"writing", (*disk).killWhileWriting},
	{"unmounting", (*disk).killWhileUnmounting},
	{"writing", (*disk).killWhileWriting},
	{"mounting", (*disk).killWhileMounting},
	{"writing", (*disk).killWhileWriting},
}

// turn is the n-th death of the servers of the i-th kind of image: each kind
// begins with another, so that a few rounds have all of them.
func turn(i, n int) (w way, direct bool) { return ways[(i+n)%len(ways)], n%2 == 1 }

// TestFewKillsAreOfEveryWay: as many as make test has, each for two kinds at
// least, past the page cache and not.
func TestFewKillsAreOfEveryWay(t *testing.T) {
	met := map[string]int{}
	for i := range kinds {
		for n := range rounds(20, len(kinds)) {
			w, direct := turn(i, n)
			met[fmt.Sprint(w.name, direct)]++
		}
	}
	for _, w := range ways {
		for _, direct := range []bool{false, true} {
			if n := met[fmt.Sprint(w.name, direct)]; n < 2 {
				t.Errorf("%s, direct %v: %d times in %v", w.name, direct, n, met)
			}
		}
	}
}

// TestKilledServersLoseNothingThatWasSynced, of images of every kind, one with
// blocks so small that most writes allocate. They die while programs write,
// one in five on its way to the end, and one in five before the disk is there.
func TestKilledServersLoseNothingThatWasSynced(t *testing.T) {
	for i, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.QEMU(t, "qemu-img")
			d := newDisk(t, harness.New(t), k, ".")
			before := d.syncs()
			for n := range rounds(*kills, len(kinds)) {
				w, direct := turn(i, n)
				d.past(t, direct, d.image)
				w.kill(d, t)
				d.verify(t)
				if d.count(w.name); t.Failed() {
					t.Logf("in round %d, while %s %v", n, w.name, d.flags)
					return
				}
			}
			t.Logf("kills %v, %d fsyncs", d.rounds, d.syncs()-before)
			if d.syncs() == before {
				t.Error("no fsync succeeded: nothing was tested")
			}
		})
	}
}

// rounds is how many of n each of several tests does, one at least.
func rounds(n, tests int) int { return max(1, (n+tests-1)/tests) }

func (d *disk) killWhileWriting(t *testing.T) {
	t.Helper()
	m := d.b.Mount(d.image, d.flags...)
	pid := m.PID()
	r := d.start(m)
	if *kills >= 100 && d.random.IntN(25) == 0 {
		d.between(4*time.Second, 7*time.Second) // metadata is written back after five
	}
	d.work(10, 200)
	d.kill(t, pid)
	r.wait(t, whenKilled...)
	d.clear(t, m)
}

// killWhileUnmounting kills a server that is flushing and closing, or is about
// to, or has just done so. An unmount that says nothing has kept everything.
func (d *disk) killWhileUnmounting(t *testing.T) {
	t.Helper()
	m := d.b.Mount(d.image, d.flags...)
	pid := m.PID()
	r := d.start(m)
	d.work(10, 100)
	r.end(t)
	cmd := d.b.Command(t.Context(), harness.Binary(t), "unmount", m.Point)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	check(t, cmd.Start())
	d.between(0, 120*time.Millisecond)
	unix.Kill(pid, unix.SIGKILL) // it may have ended
	err := cmd.Wait()
	d.b.AwaitEnd(pid)
	switch {
	case err != nil:
		d.clear(t, m)
		return
	case stderr.Len() == 0:
		d.settle()
	case !strings.Contains(stderr.String(), "server had died"):
		t.Errorf("unmount succeeds and says %s", stderr.String())
	}
	d.b.CheckGone(m.Point)
}

// killWhileMounting kills a server before, or just after, mount has said that
// the disk is there.
func (d *disk) killWhileMounting(t *testing.T) {
	t.Helper()
	point := d.b.Path("killed.mnt")
	if _, err := os.Stat(point); err != nil {
		d.b.Mkdir("killed.mnt")
	}
	args := append(append([]string{"mount"}, d.flags...), d.image, point)
	cmd := d.b.Command(t.Context(), harness.Binary(t), args...)
	check(t, cmd.Start())
	var pid int
	d.b.Eventually("a server", func() bool {
		if pid = serverOf(cmd.Process.Pid); pid == 0 && len(d.entries(t)) > 0 {
			pid = d.b.List()[0].PID // mount has returned
		}
		return pid != 0
	})
	d.between(0, 120*time.Millisecond)
	d.kill(t, pid)
	err := cmd.Wait()
	switch list := d.afterKill(); {
	case len(list) == 1 && list[0].State == "dead":
		d.b.OK("unmount", point)
	case err == nil || len(list) != 0:
		t.Errorf("mount: %v; then the list has %+v", err, list)
	case len(d.b.Mounts()) > 0: // it died before it could say that it was there
		d.b.OK("unmount", point)
	}
	d.b.CheckGone(point)
}

// entries is the files of the mounts in the runtime directory.
func (d *disk) entries(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(d.b.Runtime, "*.json"))
	check(t, err)
	return names
}

// serverOf is the server that the process pid, a mount, has started: its child
// with a session of its own. 0: there is none yet.
func serverOf(pid int) int {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		end := strings.LastIndex(string(stat), ") ") // of the name
		if err != nil || end < 0 {
			continue
		}
		fields := strings.Fields(string(stat[end+2:]))
		parent, session := fields[1], fields[3]
		if parent == strconv.Itoa(pid) && session == e.Name() {
			child, _ := strconv.Atoi(session)
			return child
		}
	}
	return 0
}
