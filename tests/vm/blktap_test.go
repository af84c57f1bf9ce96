package vm

import (
	"testing"
	"time"
)

// needBlktap is the need of the suite that a foreign module is built for.
func needBlktap(t *testing.T) {
	t.Helper()
	if *blktapKO == "" {
		t.Skip("needs a blktap module: make test-vm BLKTAP_KO=blktap.ko")
	}
}

// needTapdisk is the need of tests with Xen's programs as peers.
func needTapdisk(t *testing.T) {
	t.Helper()
	needBlktap(t)
	if *tapdisk == "" {
		t.Skip("needs Xen's programs: make test-vm BLKTAP_KO=blktap.ko TAPDISK_BUILD=dir")
	}
}

// TestBlktap runs each script on the real module.
func TestBlktap(t *testing.T) {
	for _, c := range []struct{ behaviour, script string }{
		{"a mounted image is a block device", "blktap"},
		{"the wiki page's flow", "wiki"},
		{"a hundred attachments and two disks", "cycles,100"},
		{"a snapshot under load", "pause"},
		{"a killed server", "killed"},
	} {
		t.Run(c.behaviour, func(t *testing.T) {
			t.Parallel()
			needBlktap(t)
			machine{script: c.script, scratch: true, limit: 10 * time.Minute}.run(t)
		})
	}
}

// TestBlktapIsSwapOfALittleMachine that needs more memory than it has.
func TestBlktapIsSwapOfALittleMachine(t *testing.T) {
	for _, image := range []string{"fixed", "dynamic"} {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			needBlktap(t)
			machine{script: "swap,blktap," + image, scratch: true, memory: 256}.run(t)
		})
	}
}

// TestTapdisk has Xen's programs as peers.
func TestTapdisk(t *testing.T) {
	for _, c := range []struct{ behaviour, script string }{
		{"tap-ctl drives this server", "tapctl"},
		{"tap drives that tapdisk", "tapdisk"},
		{"images are exchanged", "exchange"},
	} {
		t.Run(c.behaviour, func(t *testing.T) {
			t.Parallel()
			needTapdisk(t)
			machine{script: c.script, scratch: true, limit: 10 * time.Minute}.run(t)
		})
	}
}
