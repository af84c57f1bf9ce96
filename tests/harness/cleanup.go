package harness

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a server may take to end after its disk was taken away.
const patience = 10 * time.Second

// cleanup takes away all that the test left, and the box.
func (b *Box) cleanup() {
	b.t.Helper()
	b.dropLoops()
	points := b.Mounts()
	slices.Reverse(points)
	for _, point := range points {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			exec.Command("fusermount3", "-u", "-z", "--", point).Run() // without root; what stays fails RemoveAll below
		}
	}
	b.endServers()
	b.reportRaces()
	if err := os.RemoveAll(b.Dir); err != nil {
		b.t.Errorf("cleaning up: %v", err)
	}
}

// dropLoops detaches the loop devices whose files are in the box.
func (b *Box) dropLoops() {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range files {
		name, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(name), b.Dir+"/") {
			continue
		}
		losetup, _ := Find("losetup")
		device := "/dev/" + strings.Split(file, "/")[3]
		if out, err := exec.Command(losetup, "-d", device).CombinedOutput(); err != nil {
			b.t.Errorf("losetup -d %s: %v: %s", device, err, out)
		}
	}
}

// endServers waits for the servers that the runtime directory names, and kills
// those that don't end although their disks are gone.
func (b *Box) endServers() {
	entries, _ := filepath.Glob(filepath.Join(b.Runtime, "*.json"))
	for _, name := range entries {
		var l Listed
		data, err := os.ReadFile(name)
		if err != nil || json.Unmarshal(data, &l) != nil || !b.runs(l.PID) {
			continue
		}
		unix.Unmount(l.Mountpoint, unix.MNT_DETACH) // fails where that was done
		if !awaitEnd(l.PID, patience) {
			b.t.Errorf("server %d of %s outlived its disk", l.PID, l.Image)
			unix.Kill(l.PID, unix.SIGKILL)
			awaitEnd(l.PID, patience)
		}
	}
}

// runs tells whether pid is a server of this package's program: numbers are
// used again.
func (b *Box) runs(pid int) bool {
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	return err == nil && strings.TrimSuffix(exe, " (deleted)") == filepath.Join(binaryDir, "vhdmount")
}

// reportRaces fails the test for each race that a server met.
func (b *Box) reportRaces() {
	logs, _ := filepath.Glob(b.raceLog() + ".*")
	for _, name := range logs {
		text, _ := os.ReadFile(name)
		b.t.Errorf("the race detector of a server: %s", text)
	}
}
