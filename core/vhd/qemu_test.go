package vhd_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

var withQEMU = flag.Bool("qemu", false, "run the tests against qemu-img and qemu-io, which must be installed")

// needQEMU ends a test that was not asked for. One that was fails without the
// programs.
func needQEMU(t *testing.T) {
	t.Helper()
	if !*withQEMU {
		t.Skip("needs qemu-img and qemu-io: run with -qemu")
	}
}

// qemu runs one of QEMU's programs and returns what it said.
func qemu(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// sameInQEMU sees that qemu reads from an image, of the size it has here, what
// want is.
func sameInQEMU(t *testing.T, path string, want []byte) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "converted.raw")
	qemu(t, "qemu-img", "convert", "-f", "vpc", "-O", "raw", path, raw)
	got, err := os.ReadFile(raw)
	must(t, err)
	if len(got) != len(want) {
		t.Errorf("qemu shows %d bytes, want %d", len(got), len(want))
	}
	if !bytes.Equal(got, want) {
		t.Error("qemu shows other bytes")
	}
}

func TestImagesByQEMU(t *testing.T) {
	needQEMU(t)
	for _, subformat := range []string{"dynamic", "fixed"} {
		for _, force := range []string{"on", "off"} {
			for _, size := range []string{"512", "4M", "33554944", "100M"} {
				t.Run(fmt.Sprintf("%s/force_size=%s/%s", subformat, force, size), func(t *testing.T) {
					path := filepath.Join(t.TempDir(), "disk.vhd")
					qemu(t, "qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat="+subformat+",force_size="+force, path, size)
					worksWithQEMU(t, path)
				})
			}
		}
	}
}

// worksWithQEMU has qemu-io and the engine write to an image in turn, and each
// read what the other wrote.
func worksWithQEMU(t *testing.T, path string) {
	t.Helper()
	img := open(t, storage.OS, path)
	size := img.Size()
	model := readAll(t, img)
	must(t, img.Close())
	sameInQEMU(t, path, model) // of the same size, above all

	for round := range byte(2) {
		var commands []string
		for _, off := range []int64{0, size / 3 &^ 511, size - 512} {
			n := min(int64(5*512), size-off)
			commands = append(commands, "-c", fmt.Sprintf("write -P %d %d %d", 0x40+round, off, n))
			for i := range n {
				model[off+i] = 0x40 + round
			}
		}
		qemu(t, "qemu-io", append([]string{"-f", "vpc", path}, commands...)...)
		img := open(t, storage.OS, path)
		if !bytes.Equal(readAll(t, img), model) {
			t.Fatal("what qemu wrote is not what is read")
		}
		churn(t, img, model, uint64(round))
		must(t, img.Discard(size/2, size-size/2))
		clear(model[(size/2+511)&^511:])
		must(t, write(img, "end", size-3))
		copy(model[size-3:], "end")
		must(t, img.Close())
		sameInQEMU(t, path, model)
	}
}

func TestNewImagesOpenInQEMU(t *testing.T) {
	needQEMU(t)
	for _, kind := range []format.DiskType{format.Fixed, format.Dynamic} {
		for _, size := range []int64{512, 1 << 20, 33554944, 200<<20 + 512} {
			t.Run(fmt.Sprintf("%v/%d", kind, size), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "disk.vhd")
				create(t, storage.OS, path, kind, size, 0)
				info := qemu(t, "qemu-img", "info", "--output=json", "-f", "vpc", path)
				if !strings.Contains(info, fmt.Sprintf(`"virtual-size": %d,`, size)) {
					t.Errorf("not of %d bytes: %s", size, info)
				}
				worksWithQEMU(t, path)
			})
		}
	}
	path := filepath.Join(t.TempDir(), "large.vhd")
	create(t, storage.OS, path, format.Dynamic, vhd.MaxCreateSize, 0)
	info := qemu(t, "qemu-img", "info", "--output=json", "-f", "vpc", path)
	if !strings.Contains(info, fmt.Sprintf(`"virtual-size": %d,`, int64(vhd.MaxCreateSize))) {
		t.Errorf("not of %d bytes: %s", int64(vhd.MaxCreateSize), info)
	}
}

// An image is flattened by qemu to what it shows here, at every moment at
// which it was flushed: qemu can take over after a crash.
func TestFlushedImageIsGoodForQEMU(t *testing.T) {
	needQEMU(t)
	path := filepath.Join(t.TempDir(), "disk.vhd")
	create(t, storage.OS, path, format.Dynamic, 64<<20, 0)
	img := open(t, storage.OS, path)
	defer img.Close()
	model := readAll(t, img)
	churn(t, img, model, 5)
	must(t, img.Flush())
	b, err := os.ReadFile(path)
	must(t, err)
	copied := filepath.Join(t.TempDir(), "copy.vhd")
	must(t, os.WriteFile(copied, b, 0o600))
	sameInQEMU(t, copied, model)
	img, err = vhd.Open(copied, vhd.Options{})
	must(t, err)
	defer img.Close()
	if !bytes.Equal(readAll(t, img), model) {
		t.Error("the copy shows other bytes here")
	}
}

func TestQEMUAndTheEngineKeepOneAnotherOut(t *testing.T) {
	needQEMU(t)
	path := filepath.Join(t.TempDir(), "disk.vhd")
	create(t, storage.OS, path, format.Dynamic, 8<<20, 0)
	img := open(t, storage.OS, path)
	for _, args := range [][]string{{"-c", "write 0 512"}, {"-r", "-c", "read 0 512"}} {
		out, err := exec.CommandContext(t.Context(), "qemu-io", append([]string{"-f", "vpc", path}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "lock") {
			t.Errorf("qemu-io %v opens an image that is open here: %s", args, out)
		}
	}
	must(t, img.Close())

	for _, test := range []struct {
		flag           string
		reader, writer bool // what may open it beside qemu
	}{{"-r", true, false}, {"-n", false, false}} {
		release := holdInQEMU(t, path, test.flag)
		for readOnly, may := range map[bool]bool{true: test.reader, false: test.writer} {
			img, err := vhd.Open(path, vhd.Options{ReadOnly: readOnly})
			switch {
			case may && err != nil:
				t.Errorf("qemu-io %s: a reader: %v", test.flag, err)
			case !may && !errors.Is(err, storage.ErrInUse):
				t.Errorf("qemu-io %s: read-only %v: %v, want ErrInUse", test.flag, readOnly, err)
			case !may && !strings.Contains(err.Error(), "qemu-io"):
				t.Errorf("%v doesn't name the holder", err)
			}
			if err == nil {
				must(t, img.Close())
			}
		}
		release()
	}
	must(t, open(t, storage.OS, path).Close())
}

// holdInQEMU has a qemu-io open an image until release is called.
func holdInQEMU(t *testing.T, path, flag string) (release func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "qemu-io", "-f", "vpc", flag, path)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	// It answers once it has the image.
	_, err = in.Write([]byte("length\n"))
	must(t, err)
	answer := make([]byte, 256)
	for got := ""; !strings.Contains(got, "MiB"); {
		n, err := out.Read(answer)
		must(t, err)
		got += string(answer[:n])
	}
	return func() {
		must(t, in.Close())
		must(t, cmd.Wait())
	}
}
