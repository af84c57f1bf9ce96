package interop

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// qemuOptions are the ways in which qemu-img makes a VHD.
func qemuOptions() map[string]string {
	out := map[string]string{}
	for _, kind := range kinds {
		for _, force := range []string{"on", "off"} {
			out[kind+" force_size="+force] = "subformat=" + kind + ",force_size=" + force
		}
	}
	return out
}

// TestWeReadWhatQEMUConverted, of sizes that its geometry rounds and doesn't.
func TestWeReadWhatQEMUConverted(t *testing.T) {
	for name, options := range qemuOptions() {
		for _, size := range []int64{34816, 64 << 20, 100<<20 + 512} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				t.Parallel()
				harness.Fuse(t)
				harness.QEMU(t, "qemu-img")
				b := harness.New(t)
				rawPattern(t, b, size)
				b.Tool("qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", options, "raw.img", "disk.vhd")
				b.OK("check", "disk.vhd")
				m := b.Mount("disk.vhd", "--read-only")
				qemuSees(t, b, m, "disk.vhd")
				b.Tool("cmp", "-n", strconv.FormatInt(size, 10), "raw.img", m.Disk)
				m.Unmount()
			})
		}
	}
}

// identical has qemu-img compare a VHD and a raw image, sizes included.
func identical(t *testing.T, b *harness.Box, args ...string) {
	t.Helper()
	text := b.Tool("qemu-img", append([]string{"compare", "-f", "vpc", "-F", "raw"}, args...)...)
	if text != "Images are identical.\n" {
		t.Errorf("qemu-img compare %v: %s", args, text)
	}
}

// qemuSees checks that qemu shows a disk of the mounted one's size and
// contents for an image that nobody may be writing to.
func qemuSees(t *testing.T, b *harness.Box, m *harness.Mount, image string) {
	t.Helper()
	identical(t, b, "-U", image, m.Disk)
}

// TestQEMUReadsWhatWeWrote into images of its own and of ours.
func TestQEMUReadsWhatWeWrote(t *testing.T) {
	makers := map[string]func(b *harness.Box){}
	for name, options := range qemuOptions() {
		makers["qemu "+name] = func(b *harness.Box) {
			b.Tool("qemu-img", "create", "-q", "-f", "vpc", "-o", options, "disk.vhd", "64M")
		}
	}
	for _, kind := range kinds {
		makers["ours "+kind] = func(b *harness.Box) { b.OK("create", "--type", kind, "64M", "disk.vhd") }
	}
	for name, create := range makers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.QEMU(t, "qemu-img")
			b := harness.New(t)
			create(b)
			m := b.Mount("disk.vhd")
			fill(t, m, 1)
			b.Tool("cp", "--sparse=always", m.Disk, "copy.raw")
			m.Unmount()
			b.OK("check", "disk.vhd")
			identical(t, b, "disk.vhd", "copy.raw")
			b.Tool("qemu-img", "convert", "-f", "vpc", "-O", "raw", "disk.vhd", "converted.raw")
			b.Tool("cmp", "converted.raw", "copy.raw")
		})
	}
}

// TestQEMUAndWeWriteInTurns to one image, and each sees what the other wrote.
func TestQEMUAndWeWriteInTurns(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.QEMU(t, "qemu-io")
			b := harness.New(t)
			b.OK("create", "--type", kind, "64M", "disk.vhd")
			verify := func() []string { return nil }
			for round := range 4 {
				at := strconv.Itoa(round*5+1) + "M"
				pattern := strconv.Itoa(16 + round)
				qemuIO(b, "vpc", "disk.vhd", "write -P "+pattern+" "+at+" 300k")
				before := verify
				verify = func() []string { return append(before(), "read -P "+pattern+" "+at+" 300k") }
				m := b.Mount("disk.vhd")
				qemuIO(b, "raw", m.Disk, verify()...)
				ours := strconv.Itoa(round*5+3) + "M"
				qemuIO(b, "raw", m.Disk, "write -P "+strconv.Itoa(32+round)+" "+ours+" 70k")
				before2 := verify
				verify = func() []string {
					return append(before2(), "read -P "+strconv.Itoa(32+round)+" "+ours+" 70k", "read -P 0 "+strconv.Itoa(round*5+4)+"M 64k")
				}
				m.Unmount()
				b.OK("check", "disk.vhd")
				qemuIO(b, "vpc", "disk.vhd", verify()...)
			}
		})
	}
}

// qemuIO runs commands of qemu-io's on a file; a pattern that isn't there
// fails the test.
func qemuIO(b *harness.Box, format, file string, commands ...string) {
	args := []string{"-f", format}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	b.Tool("qemu-io", append(args, file)...)
}

// TestQEMUIOOnTheMountedDisk: its own patterns in every way that it can do
// I/O to a file, with no special flag.
func TestQEMUIOOnTheMountedDisk(t *testing.T) {
	for name, flags := range map[string][]string{
		"default": nil, "no cache": {"-n"}, "native": {"-n", "-i", "native"}, "threads": {"-i", "threads"}, "discard": {"-d", "unmap"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.QEMU(t, "qemu-io")
			b := harness.New(t)
			b.OK("create", "64M", "disk.vhd")
			m := b.Mount("disk.vhd")
			args := append([]string{"-f", "raw"}, flags...)
			for _, c := range []string{
				"read -P 0 0 64M", "write -P 1 0 1M", "write -P 2 1048064 1536", "aio_write -P 3 10M 4M", "aio_write -P 4 20M 4M", "aio_flush",
				"read -P 1 0 1048064", "read -P 2 1048064 1536", "read -P 3 10M 4M", "read -P 4 20M 4M",
				"write -z 10M 2M", "read -P 0 10M 2M", "read -P 3 12M 2M", "discard 20M 2M", "read -P 4 22M 2M",
				"writev -P 5 30M 4k 8k 512", "readv -P 5 30M 8k 4k 512", "flush", "read -P 0 62M 2M",
			} {
				args = append(args, "-c", c)
			}
			b.Tool("qemu-io", append(args, m.Disk)...)
			m.Unmount()
			b.OK("check", "disk.vhd")
			qemuIO(b, "vpc", "disk.vhd", "read -P 3 12M 2M", "read -P 4 22M 2M", "read -P 0 10M 2M", "read -P 5 30M 12800")
		})
	}
}

// TestQEMUAndWeRefuseWhatTheOtherHasOpen.
func TestQEMUAndWeRefuseWhatTheOtherHasOpen(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	harness.QEMU(t, "qemu-img", "qemu-io")
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	m := b.Mount("disk.vhd")
	for _, args := range [][]string{
		{"qemu-img", "info", "disk.vhd"}, {"qemu-img", "convert", "-O", "raw", "disk.vhd", "copy.raw"},
		{"qemu-io", "-f", "vpc", "-c", "write 0 512", "disk.vhd"}, {"qemu-io", "-f", "raw", "-c", "write 0 512", "disk.vhd"},
	} {
		r := b.Try(args[0], args[1:]...)
		if r.Code == 0 && !strings.Contains(r.Stdout+r.Stderr, "lock") || !strings.Contains(r.Stdout+r.Stderr, "Failed to get") {
			t.Errorf("%v beside a mount: %+v; want it refused", args, r)
		}
	}
	m.Unmount()

	r := b.Mount("disk.vhd", "--read-only")
	b.Tool("qemu-img", "info", "disk.vhd")
	b.Tool("qemu-img", "convert", "-f", "vpc", "-O", "raw", "disk.vhd", "copy.raw")
	b.Tool("qemu-io", "-r", "-f", "vpc", "-c", "read 0 512", "disk.vhd")
	if w := b.Try("qemu-io", "-f", "vpc", "-c", "write 0 512", "disk.vhd"); !strings.Contains(w.Stdout+w.Stderr, "Failed to get") {
		t.Errorf("qemu writing beside a read-only mount: %+v; want it refused", w)
	}
	r.Unmount()

	qemu := startQEMUIO(t, b, "disk.vhd")
	b.Mkdir("mnt")
	for _, args := range [][]string{{"mount", "disk.vhd", "mnt"}, {"mount", "-r", "disk.vhd", "mnt"}, {"check", "disk.vhd"}} {
		b.Fails(args, "disk.vhd", "in use", "qemu-io (pid "+strconv.Itoa(qemu.pid)+")")
	}
	qemu.end(t)
	b.MountAt("mnt", "disk.vhd")
}

// TestAChildOfAParentThatQEMUWritesTo is refused.
func TestAChildOfAParentThatQEMUWritesTo(t *testing.T) {
	t.Parallel()
	harness.QEMU(t, "qemu-io")
	b := harness.New(t)
	b.OK("create", "64M", "base.vhd")
	b.OK("snapshot", "base.vhd", "child.vhd")
	qemu := startQEMUIO(t, b, "base.vhd")
	b.Fails([]string{"mount", "child.vhd"}, "base.vhd", "in use", "qemu-io (pid "+strconv.Itoa(qemu.pid)+")")
	b.Fails([]string{"snapshot", "base.vhd", "another.vhd"}, "base.vhd", "in use", "qemu-io")
	qemu.end(t)
	b.OK("map", "child.vhd")
}

// TestQEMUSeesOurSizes, to the byte: nothing is lost to geometry.
func TestQEMUSeesOurSizes(t *testing.T) {
	for _, size := range []string{"512", "34816", "1M", "100M", "127G", "2040G"} {
		for _, kind := range kinds {
			if kind == "fixed" && strings.HasSuffix(size, "G") {
				continue
			}
			t.Run(kind+"/"+size, func(t *testing.T) {
				t.Parallel()
				harness.QEMU(t, "qemu-img")
				b := harness.New(t)
				b.OK("create", "--type", kind, size, "disk.vhd")
				b.OK("check", "disk.vhd")
				b.Tool("qemu-img", "create", "-q", "-f", "raw", "raw.img", size)
				info, err := os.Stat(b.Path("raw.img"))
				check(t, err)
				if got := b.Tool("qemu-img", "info", "--output=json", "-f", "vpc", "disk.vhd"); !strings.Contains(got, fmt.Sprintf(`"virtual-size": %d`, info.Size())) {
					t.Errorf("qemu-img info: %s; want %d bytes", got, info.Size())
				}
				identical(t, b, "disk.vhd", "raw.img")
			})
		}
	}
}
