package mount

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// liveDisk is an image that is mounted, and its disk, open, with data written at
// off.
func liveDisk(t *testing.T, size, image string, data []byte, off int64) (*harness.Box, *harness.Mount, *os.File) {
	t.Helper()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", size, image)
	m := b.Mount(image)
	f := m.Open(os.O_RDWR)
	writeAt(t, f, data, off)
	return b, m, f
}

// TestLiveSnapshotsUnderAWriter: a program writes on and on, and reads back
// what it wrote, while the image under it becomes the parent of another, and
// that of a third. It sees no error, and each parent keeps what was there.
func TestLiveSnapshotsUnderAWriter(t *testing.T) {
	t.Parallel()
	first := harness.Random(1, 1<<20)
	b, m, f := liveDisk(t, "64M", "0.vhd", first, 32<<20)

	stop, writer := make(chan struct{}), new(sync.WaitGroup)
	rounds := 0
	writer.Go(func() {
		for ; ; rounds++ {
			select {
			case <-stop:
				return
			default:
			}
			data, off := bytes.Repeat([]byte{byte(rounds)}, 8192), int64(rounds%2000)*8192
			got := make([]byte, len(data))
			if _, err := f.WriteAt(data, off); err != nil {
				t.Errorf("write %d: %v", rounds, err)
				return
			}
			if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, data) {
				t.Errorf("write %d reads as %x…, %v", rounds, got[:4], err)
				return
			}
		}
	})
	sums := map[string]string{}
	base := m.Point
	for i := 1; i <= 5; i++ {
		child := fmt.Sprintf("%d.vhd", i)
		b.OK("snapshot", "--live", base, child)
		if got := b.List()[0]; got.Image != b.Path(child) || got.State != "running" {
			t.Errorf("list: %+v", got)
		}
		parent := fmt.Sprintf("%d.vhd", i-1)
		sums[parent] = b.Sum(parent)
		base = child // by the image in use, the next time
	}
	close(stop)
	writer.Wait()
	t.Logf("%d writes", rounds)
	info, err := os.ReadFile(m.Point + "/info.json")
	check(t, err)
	if n := strings.Count(string(info), `"type": "differencing"`); n < 5 {
		t.Errorf("info.json has %d differencing layers", n)
	}
	disk := sum(t, f)
	check(t, f.Close())
	m.Unmount()
	for image, want := range sums {
		if b.Sum(image) != want {
			t.Errorf("%s changed after it became a parent", image)
		}
	}
	b.OK("check", "--parents", "5.vhd")
	wantDisk(t, b, "0.vhd", first, 32<<20)
	again := b.Mount("5.vhd", "-r")
	f = again.Open(os.O_RDONLY)
	if got := sum(t, f); got != disk {
		t.Error("the chain shows another disk than the mount did")
	}
	check(t, f.Close())
	again.Unmount()
}

func sum(t *testing.T, f *os.File) string {
	t.Helper()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 64<<20))
	check(t, err)
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// TestALiveSnapshotThatFailsChangesNothing: the disk goes on as it was, and no
// child is left.
func TestALiveSnapshotThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	b, m, f := liveDisk(t, "8M", "a.vhd", []byte("here"), 4096)
	b.OK("create", "8M", "taken.vhd")
	b.Fails([]string{"snapshot", "--live", "taken.vhd", "b.vhd"}, "taken.vhd", "not mounted")
	before := b.Tree()
	b.Fails([]string{"snapshot", "--live", m.Point, "taken.vhd"}, "taken.vhd", "exist")
	b.Fails([]string{"snapshot", "--live", m.Point, "none/b.vhd"}, "none", "no such")
	b.Mkdir("sub")
	b.Fails([]string{"snapshot", "--live", m.Point, "sub/b.vhd"}, "sub/b.vhd", "--parent-dir")
	if _, err := os.Stat(b.Path("sub/b.vhd")); err == nil {
		t.Error("a child was left")
	}
	check(t, os.Remove(b.Path("sub")))
	after := b.Tree()
	delete(before, "/a.vhd") // flushed by the pause
	delete(after, "/a.vhd")
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("files before %v, after %v", before, after)
	}
	if got := readAt(t, f, 4, 4096); string(got) != "here" {
		t.Errorf("the disk has %q", got)
	}
	if got := b.List()[0]; got.Image != b.Path("a.vhd") || got.State != "running" {
		t.Errorf("list: %+v", got)
	}
	check(t, f.Close())
	m.Unmount()
	r := b.Mount("a.vhd", "-r")
	b.Fails([]string{"snapshot", "--live", r.Point, "b.vhd"}, "read-only", "without --live")
	r.Unmount()
}

// TestALaterLiveSnapshotThatFails leaves the disk going on with the child of the
// one before, which the server could not open itself.
func TestALaterLiveSnapshotThatFails(t *testing.T) {
	t.Parallel()
	b, m, f := liveDisk(t, "8M", "a.vhd", []byte("one"), 0)
	b.OK("snapshot", "--live", m.Point, "b.vhd")
	for range 2 {
		b.Fails([]string{"snapshot", "--live", m.Point, "b.vhd"}, "b.vhd", "exist")
	}
	writeAt(t, f, []byte("two"), 512)
	b.OK("snapshot", "--live", m.Point, "c.vhd")
	if got := readAt(t, f, 515, 0); string(got[:3]) != "one" || string(got[512:]) != "two" {
		t.Errorf("the disk has %q and %q", got[:3], got[512:])
	}
	check(t, f.Close())
	m.Unmount()
	b.OK("check", "--parents", "c.vhd")
}

// TestALiveSnapshotByAUser, of a server that is confined and not root's, by each
// name that the disk has.
func TestALiveSnapshotByAUser(t *testing.T) {
	t.Parallel()
	b := unprivileged(t)
	b.OK("create", "8M", "0.vhd")
	m := b.Mount("0.vhd")
	for i, name := range []string{m.Point, m.Disk, "2.vhd"} {
		b.OK("snapshot", "--live", name, fmt.Sprintf("%d.vhd", i+1))
	}
	if got := b.List()[0]; got.Image != b.Path("3.vhd") || got.State != "running" {
		t.Errorf("list: %+v", got)
	}
	m.Unmount()
	b.OK("check", "--parents", "3.vhd")
}

// TestALiveSnapshotOfAnImageThatWasMoved is refused before anything stops.
func TestALiveSnapshotOfAnImageThatWasMoved(t *testing.T) {
	t.Parallel()
	b, m, f := liveDisk(t, "8M", "a.vhd", []byte("here"), 0)
	check(t, os.Rename(b.Path("a.vhd"), b.Path("moved.vhd")))
	b.Fails([]string{"snapshot", "--live", m.Point, "b.vhd"}, "could not be opened again", "a.vhd")
	b.OK("create", "8M", "a.vhd") // another one, of the same size
	b.Fails([]string{"snapshot", "--live", m.Point, "b.vhd"}, "a.vhd", "moved, removed or replaced")
	if got := readAt(t, f, 4, 0); string(got) != "here" {
		t.Errorf("the disk has %q", got)
	}
	if got := b.List()[0]; got.State != "running" {
		t.Errorf("list: %+v", got)
	}
	if _, err := os.Stat(b.Path("b.vhd")); err == nil {
		t.Error("a child was left")
	}
	check(t, f.Close())
	m.Unmount()
	wantDisk(t, b, "moved.vhd", []byte("here"), 0)
}
