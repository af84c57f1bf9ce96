package harness

import (
	"os"
	"strings"
)

// FileSystem is a file system of its own, in a loop-mounted file of the box.
type FileSystem struct {
	Dir    string // where it is mounted
	Device string // the loop device
	Kind   string // "ext4", "xfs"

	box *Box
}

// NewFileSystem makes a file system of a kind, ext4 or xfs, of size bytes, and
// mounts it at a new directory called name. An ext4 that finds an error in
// itself turns read-only.
func (b *Box) NewFileSystem(name, kind string, size int64) *FileSystem {
	b.t.Helper()
	Root(b.t)
	Tools(b.t, "losetup", "mkfs."+kind)
	file := b.Path(name + ".img")
	b.Write(name+".img", nil)
	if err := os.Truncate(file, size); err != nil {
		b.t.Fatal(err)
	}
	args := []string{"-q", file}
	if kind == "ext4" {
		args = append([]string{"-m", "0"}, args...) // nothing kept back for root
	}
	b.Tool("mkfs."+kind, args...)
	fs := &FileSystem{Dir: b.Mkdir(name), Device: b.Loop(file), Kind: kind, box: b}
	fs.mount()
	return fs
}

func (fs *FileSystem) mount() {
	fs.box.t.Helper()
	args := []string{"-t", fs.Kind, fs.Device, fs.Dir}
	if fs.Kind == "ext4" {
		args = append(args, "-o", "errors=remount-ro")
	}
	fs.box.Tool("mount", args...)
}

// Remount takes the file system away, with all that it has in memory, and
// mounts it again, as after a power cut: its journal is replayed. Nobody may
// have a file of it open.
func (fs *FileSystem) Remount() {
	fs.box.t.Helper()
	// Another test's program has this one's files until it runs.
	fs.box.Eventually(fs.Dir+" is unmounted", func() bool { return fs.box.Try("umount", fs.Dir).Code == 0 })
	if fs.Kind == "ext4" {
		if r := fs.box.Try("e2fsck", "-fp", fs.Device); r.Code > 1 { // 1: it had something to do
			fs.box.t.Fatalf("e2fsck: exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
	}
	fs.mount()
}

// Loop is a new loop device on a file; it goes at the end of the test at the
// latest.
func (b *Box) Loop(file string) string {
	b.t.Helper()
	return strings.TrimSpace(b.Tool("losetup", "--find", "--show", b.Path(file)))
}
