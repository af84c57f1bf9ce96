package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// victims are who is killed in the course of a live snapshot: the server, the
// program that makes the snapshot, or both. Their number is odd, as that of ways
// is.
var victims = []struct {
	name           string
	server, client bool
}{
	{"server", true, false},
	{"client", false, true},
	{"both", true, true},
}

// freshAfter is how many live snapshots an image is to live through before the
// next begins with a new one: a chain stays short.
const freshAfter = 3

// TestKilledLiveSnapshotsLoseNothingThatWasSynced: whoever dies while a disk goes
// on with another image under programs that write, and whenever, what was synced
// is in the image that list names, be it that of before or the child. A child
// that is not in use is whole, and may go.
func TestKilledLiveSnapshotsLoseNothingThatWasSynced(t *testing.T) {
	for i, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.QEMU(t, "qemu-img")
			b, all, syncs := harness.New(t), tally{}, int64(0)
			var d *disk
			for n := range rounds(*kills, 2*len(kinds)) {
				if n%freshAfter == 0 {
					dir := b.Mkdir(fmt.Sprintf("chain%d", n))
					d = newDisk(t, b, k, dir)
					d.rounds = all
				}
				before := d.syncs()
				d.past(t, n%2 == 1, d.image)
				who := victims[(i+n)%len(victims)]
				which := d.killAroundASnapshot(t, who.server, who.client, fmt.Sprintf("child%d.vhd", n))
				d.verify(t)
				if d.count(who.name + ", " + which); t.Failed() {
					t.Logf("in round %d: %s killed, %s %v", n, who.name, which, d.flags)
					return
				}
				syncs += d.syncs() - before
				if n%freshAfter == freshAfter-1 {
					check(t, os.RemoveAll(filepath.Dir(d.chain[0])))
				}
			}
			t.Logf("kills %v, %d fsyncs", all, syncs)
			if syncs == 0 {
				t.Error("no fsync succeeded: nothing was tested")
			}
		})
	}
}

// killAroundASnapshot has the disk go on with a new child, and kills who is to
// die. A server that isn't goes on, whatever became of the child, and dies after
// that. It returns what became of the child.
func (d *disk) killAroundASnapshot(t *testing.T, server, client bool, name string) string {
	t.Helper()
	m := d.b.Mount(d.image, d.flags...)
	pid := m.PID()
	r := d.start(m)
	d.work(10, 100)
	child := filepath.Join(filepath.Dir(d.chain[0]), name)
	args := append([]string{"snapshot", "--live"}, append(smallBlocks, m.Point, child)...)
	cmd := d.b.Command(t.Context(), harness.Binary(t), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	check(t, cmd.Start())
	d.await(child)
	if client {
		check(t, cmd.Process.Kill())
		d.between(0, 2*time.Millisecond)
	}
	if server {
		d.kill(t, pid)
	}
	err := d.outcome(t, cmd, client)
	if !server {
		d.workGoesOn(t, r)
		d.work(10, 100)
		d.kill(t, pid)
	}
	r.wait(t, whenKilled...)
	shown := d.afterKill()
	d.clear(t, m)
	if len(shown) != 1 {
		t.Fatalf("the list has %+v", shown)
	}
	if err == nil && shown[0].Image != child {
		t.Errorf("the snapshot was made, and the list has %s; standard error: %s", shown[0].Image, stderr.String())
	}
	return d.follow(t, shown[0].Image, child)
}

// await waits for a moment at random in the making of a child: mostly for one
// when it has its name, which is when the disk is about to go on with it: sooner
// rather than later.
func (d *disk) await(child string) {
	if d.random.IntN(4) > 0 {
		d.within(2*time.Second, func() bool {
			_, err := os.Lstat(child)
			return err == nil
		})
		d.between(0, time.Millisecond<<d.random.IntN(7))
		return
	}
	d.between(0, 300*time.Millisecond)
}

// outcome waits for the program that makes the snapshot and tells how it ended.
// That it was killed is nothing it says.
func (d *disk) outcome(t *testing.T, cmd *exec.Cmd, killed bool) error {
	t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() < 0 && !killed) {
		t.Errorf("snapshot --live: %v", err)
	}
	return err
}

// follow takes image, in which the data is by list's word, for the disk's. A
// child that is not in use is a valid image, and goes.
func (d *disk) follow(t *testing.T, image, child string) string {
	t.Helper()
	switch image {
	case child:
		d.image, d.chain = child, append([]string{child}, d.chain...)
		return "child in use"
	case d.chain[0]:
	default:
		t.Fatalf("the list has %s; want %s or %s", image, d.chain[0], child)
	}
	if _, err := os.Lstat(child); errors.Is(err, fs.ErrNotExist) {
		return "no child"
	}
	d.b.OK("check", child)
	check(t, unix.Unlink(child))
	return "child left"
}
