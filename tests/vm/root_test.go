package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vhdmount/vhdmount/tests/harness"
)

const busybox = "/bin/busybox" // of busybox-static

// tools are this machine's programs that the guest gets; it has busybox for
// everything else.
var tools = []string{
	"dash", "fio", "mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair",
	"losetup", "mount", "umount", "fstrim", "blkdiscard", "script",
}

// tree is the guest's file system, being put together in a directory.
type tree struct {
	dir       string
	libraries []string // directories with libraries beside the system's
}

// makeTree puts together the guest's file system: programs with their
// libraries, the built program and the scripts.
func makeTree(ctx context.Context, dir string) (*tree, error) {
	r := &tree{dir: dir}
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "var", "mnt", "etc", "busybox", "guest", "sbin", "bin", "usr/libexec"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	err := r.addApplets(ctx)
	for _, tool := range tools {
		file, ok := harness.Find(tool)
		if !ok {
			return nil, fmt.Errorf("%s is not installed (make deps-vm)", tool)
		}
		err = errors.Join(err, r.addProgram(ctx, file, "/usr/sbin/"+tool))
	}
	return r, errors.Join(err,
		os.Symlink("/usr/sbin/dash", filepath.Join(dir, "bin/sh")),
		os.Symlink("/proc/mounts", filepath.Join(dir, "etc/mtab")),
		r.copy("guest/init", "/sbin/init"),
		os.CopyFS(filepath.Join(dir, "guest"), os.DirFS("guest")),
		buildProgram(ctx, filepath.Join(dir, "usr/sbin/vhdmount")))
}

// addApplets makes a link for each program that busybox is.
func (r *tree) addApplets(ctx context.Context) error {
	list, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("%w (make deps-vm)", err)
	}
	err = r.copy(busybox, "/busybox/busybox")
	for name := range strings.FieldsSeq(string(list)) {
		if name != "busybox" {
			err = errors.Join(err, os.Symlink("busybox", filepath.Join(r.dir, "busybox", name)))
		}
	}
	return err
}

// addProgram copies a program, and its libraries to where they are here.
func (r *tree) addProgram(ctx context.Context, file, name string) error {
	if err := r.copy(file, name); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "ldd", file)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(r.libraries, ":"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("ldd %s: %w: %s", file, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if err := r.addLibrary(line); err != nil {
			return fmt.Errorf("ldd %s: %w", file, err)
		}
	}
	return nil
}

// addLibrary copies what a line of ldd names: "name => file (address)", or
// "file (address)" for the dynamic linker.
func (r *tree) addLibrary(line string) error {
	if strings.Contains(line, "not found") {
		return errors.New(strings.TrimSpace(line))
	}
	for word := range strings.FieldsSeq(line) {
		if !filepath.IsAbs(word) {
			continue
		}
		name := word
		for _, dir := range r.libraries {
			if filepath.Dir(word) == dir {
				name = "/usr/lib/x86_64-linux-gnu/" + filepath.Base(word)
			}
		}
		if _, err := os.Stat(filepath.Join(r.dir, name)); err == nil {
			continue
		}
		if err := r.copy(word, name); err != nil {
			return err
		}
	}
	return nil
}

// copy copies a file, following links, and makes it executable.
func (r *tree) copy(file, name string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	target := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, data, 0o755)
}

// gconv are the C library's files for the encodings of a parent's name, which
// Xen's programs convert.
var gconv = []string{"UTF-16.so", "gconv-modules", "gconv-modules.cache"}

// addTapdisk copies Xen's programs from a directory in which they were built,
// or into which they were installed.
func (r *tree) addTapdisk(ctx context.Context, dir string) error {
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name := d.Name()
		switch {
		case name == "tapdisk", name == "tap-ctl", name == "vhd-util":
			// Where they were built, scripts of libtool have the same names.
			if isELF(path) {
				found[name] = path
			}
		case strings.Contains(name, ".so."):
			r.libraries = append(r.libraries, filepath.Dir(path))
		}
		return nil
	})
	for name, target := range map[string]string{"tapdisk": "/usr/libexec/", "tap-ctl": "/usr/sbin/", "vhd-util": "/usr/sbin/"} {
		if found[name] == "" {
			return errors.Join(err, fmt.Errorf("%s has no %s that was built", dir, name))
		}
		err = errors.Join(err, r.addProgram(ctx, found[name], target+name))
	}
	for _, name := range gconv {
		file := "/usr/lib/x86_64-linux-gnu/gconv/" + name
		err = errors.Join(err, r.copy(file, file))
	}
	return err
}

func isELF(file string) bool {
	data, err := os.ReadFile(file)
	return err == nil && bytes.HasPrefix(data, []byte("\x7fELF"))
}

// disk makes an ext4 image of the tree, in file, which may be there already
// and then keeps its size.
func (r *tree) disk(ctx context.Context, file string, size ...string) error {
	mke2fs, ok := harness.Find("mkfs.ext4")
	if !ok {
		return errors.New("mkfs.ext4 is not installed (make deps-vm)")
	}
	args := append([]string{"-q", "-F", "-O", "^has_journal", "-E", "root_owner=0:0", "-d", r.dir, file}, size...)
	if out, err := exec.CommandContext(ctx, mke2fs, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4 %s: %w: %s", file, err, out)
	}
	return nil
}

// buildProgram builds the program as it is shipped: static, without the race
// detector, which would take minutes in an emulated machine.
func buildProgram(ctx context.Context, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-X main.version="+harness.Version+" -X main.commit="+harness.Commit, "-o", file, "./cmd/vhdmount")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	return nil
}
