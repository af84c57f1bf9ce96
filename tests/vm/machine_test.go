package vm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/tests/harness"
)

var (
	kernelDir = flag.String("kernel", "", "boot the kernel of this `directory` (scripts/guest-kernel makes one; make test-vm)")
	blktapKO  = flag.String("blktap", "", "a blktap module for that kernel: a `file`")
	accel     = flag.String("accel", "tcg", "qemu's -accel: tcg, which emulates a processor, works wherever qemu does; kvm is quicker")
	tapdisk   = flag.String("tapdisk", "", "a `directory` with Xen's tapdisk, tap-ctl and vhd-util")
)

func TestMain(m *testing.M) {
	code := harness.Main(m)
	if home != "" {
		os.RemoveAll(home)
	}
	os.Exit(code)
}

// home is where the files of prepared are: none until they are made.
var home string

// modules are what the guest loads: its disk, and what its scripts use. The
// checksum is one that file systems ask for by an alias.
var modules = []string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "xfs", "fuse", "loop"}

// guestFiles are what all machines of a run share.
type guestFiles struct {
	kernel, initramfs, root string
	tree                    *tree
}

// prepared makes the files that machines boot from, once.
var prepared = sync.OnceValues(func() (f guestFiles, err error) {
	k, err := openKernel(*kernelDir)
	if err != nil {
		return f, err
	}
	if home, err = os.MkdirTemp("", "vhdmount-guest-"); err != nil {
		return f, err
	}
	f = guestFiles{kernel: k.image, initramfs: filepath.Join(home, "initramfs"), root: filepath.Join(home, "root.img")}
	order, err := k.loadOrder(modules...)
	if err != nil {
		return f, err
	}
	archive, err := firstRoot(order)
	if err != nil {
		return f, err
	}
	if err := os.WriteFile(f.initramfs, archive, 0o644); err != nil {
		return f, err
	}
	f.tree, err = fillTree(filepath.Join(home, "root"))
	if err != nil {
		return f, err
	}
	return f, f.tree.disk(context.Background(), f.root, "512M")
})

// fillTree is makeTree with what the flags name.
func fillTree(dir string) (*tree, error) {
	ctx := context.Background()
	r, err := makeTree(ctx, dir)
	if err == nil && *blktapKO != "" {
		err = r.copy(*blktapKO, "/blktap.ko")
	}
	if err == nil && *tapdisk != "" {
		err = r.addTapdisk(ctx, *tapdisk)
	}
	return r, err
}

// needKernel is the need of a test that boots Linux, and returns what to boot.
func needKernel(t *testing.T) guestFiles {
	t.Helper()
	if *kernelDir == "" {
		t.Skip("boots Linux: ask for it with -kernel (make test-vm)")
	}
	if _, installed := harness.Find("qemu-system-x86_64"); !installed {
		t.Fatal("-kernel was given, but qemu-system-x86_64 is not installed (make deps-vm)")
	}
	f, err := prepared()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// machine is a guest to be booted.
type machine struct {
	script  string        // with its arguments, after commas
	memory  int           // MiB; 0: 512
	cpus    int           // 0: 2
	scratch bool          // a second disk, /dev/vdb, of 8 GiB without content
	root    string        // the value of a -drive with the first disk, which may be written to; "": the one that all share
	limit   time.Duration // 0: five minutes
}

// run boots m, and fails the test unless its script ended with exit code 0 and
// the kernel had nothing to complain about. It returns the lines that the
// script wrote to /dev/ttyS1.
func (m machine) run(t *testing.T) []string {
	t.Helper()
	f := needKernel(t)
	dir, err := os.MkdirTemp("", "vhdmount-machine-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), orElse(m.limit, 5*time.Minute))
	defer cancel()
	args, err := m.arguments(f, dir)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves no machine behind
	out, err := cmd.CombinedOutput()
	status, statusErr := os.ReadFile(filepath.Join(dir, "status"))
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(status), "\r", "")), "\n")
	last := lines[len(lines)-1]
	if err := errors.Join(err, statusErr, ctx.Err()); err == nil && last == "exit 0" {
		return lines[:len(lines)-1]
	}
	t.Fatalf("the guest's script %s: %q, %v: %s\n%s", m.script, last, errors.Join(err, ctx.Err()), out, keep(t, filepath.Join(dir, "console")))
	return nil
}

// keep saves the console of a guest that failed, and says where, below its
// last lines.
func keep(t *testing.T, console string) string {
	data, err := os.ReadFile(console)
	if err != nil {
		return err.Error()
	}
	file, err := os.CreateTemp("", strings.ReplaceAll(t.Name(), "/", "-")+"-*.console")
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	file.Write(data) // a test that has failed already
	text := strings.ReplaceAll(string(data), "\r", "")
	if lines := strings.SplitAfter(text, "\n"); len(lines) > 80 {
		text = strings.Join(lines[len(lines)-80:], "")
	}
	return text + "\nall of it: " + file.Name()
}

// arguments is qemu's command line, for files in dir.
func (m machine) arguments(f guestFiles, dir string) ([]string, error) {
	root, mode := m.root, "rw"
	if root == "" {
		root, mode = "format=raw,readonly=on,file="+f.root, "ro"
	}
	args := []string{
		"-accel", *accel, "-display", "none", "-monitor", "none", "-nodefaults", "-no-reboot",
		"-m", strconv.Itoa(orElse(m.memory, 512)), "-smp", strconv.Itoa(orElse(m.cpus, 2)),
		"-serial", "file:" + filepath.Join(dir, "console"), "-serial", "file:" + filepath.Join(dir, "status"),
		"-kernel", f.kernel, "-initrd", f.initramfs,
		"-append", fmt.Sprintf("console=ttyS0 loglevel=5 panic=-1 vm.root=%s vm.script=%s", mode, m.script),
		"-drive", "if=virtio," + root,
	}
	if !m.scratch {
		return args, nil
	}
	scratch := filepath.Join(dir, "scratch")
	if err := os.WriteFile(scratch, nil, 0o600); err != nil {
		return nil, err
	}
	return append(args, "-drive", "if=virtio,format=raw,discard=unmap,file="+scratch), os.Truncate(scratch, 8<<30)
}

// orElse is v, or what stands for its zero value.
func orElse[T comparable](v, other T) T {
	var zero T
	if v == zero {
		return other
	}
	return v
}
