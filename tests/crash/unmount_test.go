package crash

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// TestUnmountOfAServerThatDiesMeanwhile says so, and clears what it left. The
// test holds the entry's lock in the server's place: to unmount, it has a server
// that doesn't listen any more, and then ends.
func TestUnmountOfAServerThatDiesMeanwhile(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	d := newDisk(t, harness.New(t), kinds[0], ".")
	m := d.b.Mount(d.image)
	d.kill(t, m.PID())
	entries, err := filepath.Glob(filepath.Join(d.b.Runtime, "*.json"))
	check(t, err)
	entry := d.b.Open(entries[0], unix.O_RDWR)
	check(t, unix.Flock(int(entry.Fd()), unix.LOCK_EX))

	cmd := d.b.Command(t.Context(), harness.Binary(t), "unmount", m.Point)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	check(t, cmd.Start())
	d.between(500*time.Millisecond, time.Second)
	check(t, entry.Close())
	if err := cmd.Wait(); err != nil || !strings.Contains(stderr.String(), "its server had died") {
		t.Errorf("unmount: %v, %q; want it to say that the server died", err, stderr.String())
	}
	d.b.CheckGone(m.Point)
}
