package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// initramfs is a cpio archive, as the kernel unpacks it into its first root
// (newc: Documentation/driver-api/early-userspace/buffer-format.rst).
type initramfs struct {
	bytes.Buffer
	files int
}

const (
	cpioDir        = 0o040755
	cpioExecutable = 0o100755
)

// add appends a directory or a file.
func (a *initramfs) add(name string, mode uint32, data []byte) {
	a.files++
	a.WriteString("070701")
	for _, field := range []int{a.files, int(mode), 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(a, "%08X", field)
	}
	a.WriteString(name + "\x00")
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *initramfs) pad() { a.Write(make([]byte, -a.Len()&3)) }

func (a *initramfs) finish() []byte {
	a.add("TRAILER!!!", 0, nil)
	return a.Bytes()
}

// firstRoot is the archive that loads modules, mounts the first disk and goes
// on with the init of that.
func firstRoot(modules []string) ([]byte, error) {
	var a initramfs
	for _, dir := range []string{"bin", "dev", "proc", "new", "modules"} {
		a.add(dir, cpioDir, nil)
	}
	shell, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("%w (make deps-vm)", err)
	}
	a.add("bin/busybox", cpioExecutable, shell)
	init, err := os.ReadFile("guest/initramfs")
	if err != nil {
		return nil, err
	}
	a.add("init", cpioExecutable, init)
	var order []string
	for _, file := range modules {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := "modules/" + filepath.Base(file)
		a.add(name, cpioExecutable, data)
		order = append(order, "/"+name+"\n")
	}
	a.add("modules/order", cpioExecutable, []byte(strings.Join(order, "")))
	return a.finish(), nil
}
