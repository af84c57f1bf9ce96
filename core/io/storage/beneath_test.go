package storage

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// ways are the two that files are opened without links: by the kernel in one
// call, and where that is too old.
var ways = map[string]func(at int, name string, flags int) (int, error){
	"openat2": openWithoutLinks,
	"walk":    walkWithoutLinks,
}

// tree is a directory without links in its path, with inside/file, and links
// to the same and to elsewhere.
func tree(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.MkdirAll(at("root/inside/deep"), 0o700),
		os.Mkdir(at("outside"), 0o700),
		os.WriteFile(at("root/inside/file"), []byte("inside"), 0o600),
		os.WriteFile(at("root/inside/deep/file"), []byte("inside"), 0o600),
		os.WriteFile(at("outside/file"), []byte("secret"), 0o600),
		os.Symlink("inside", at("root/link")),
		os.Symlink("../outside", at("root/away")),
		os.Symlink(at("outside"), at("root/absolute")),
		os.Symlink("file", at("root/inside/filelink")),
		os.Symlink("root", at("rootlink")),
		unix.Mkfifo(at("root/fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestNoWayLeadsThroughALink(t *testing.T) {
	dir := tree(t)
	root, err := unix.Open(filepath.Join(dir, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	tests := []struct {
		at   int
		name string
		want error
	}{
		{root, "inside/file", nil},
		{root, "inside/deep/file", nil},
		{root, "inside//deep/./file", nil},
		{root, "link/file", ErrOutside},
		{root, "inside/filelink", ErrOutside},
		{root, "away/file", ErrOutside},
		{root, "absolute/file", ErrOutside},
		{root, "inside/none", unix.ENOENT},
		{root, "none/file", unix.ENOENT},
		{root, "inside/file/x", unix.ENOTDIR},
		{unix.AT_FDCWD, filepath.Join(dir, "outside/file"), nil},
		{unix.AT_FDCWD, filepath.Join(dir, "rootlink/inside/file"), ErrOutside},
		{unix.AT_FDCWD, "/proc/self/root/etc/passwd", ErrOutside},
		{unix.AT_FDCWD, "/proc/self/status", ErrOutside},
		{unix.AT_FDCWD, "/", nil},
	}
	for way, open := range ways {
		for _, test := range tests {
			fd, err := open(test.at, test.name, unix.O_RDONLY)
			if err == nil {
				unix.Close(fd)
			}
			if !errors.Is(err, test.want) {
				t.Errorf("%s: %s: error %v, want %v", way, test.name, err, test.want)
			}
		}
	}
}

func TestOpenBeneath(t *testing.T) {
	dir := tree(t)
	before := descriptors(t)
	tests := []struct {
		root, name string
		want       error
	}{
		{"root", "inside/file", nil},
		{"root", "link/file", ErrOutside},
		{"root", "away/file", ErrOutside},
		{"root", "../outside/file", ErrOutside},
		{"root", "inside/filelink", ErrNotRegular},
		{"root", "link", ErrNotRegular},
		{"root", "inside", ErrNotRegular},
		{"root", "fifo", ErrNotRegular}, // and it doesn't wait for a writer
		{"rootlink", "inside/file", ErrOutside},
		{"none", "file", os.ErrNotExist},
	}
	for _, test := range tests {
		for _, flag := range []Flag{0, ReadWrite, NoFollow} {
			f, err := OS.OpenBeneath(filepath.Join(dir, test.root), test.name, flag)
			if !errors.Is(err, test.want) {
				t.Errorf("%s in %s, flag %v: error %v, want %v", test.name, test.root, flag, err, test.want)
			}
			if err == nil {
				f.Close()
			}
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors open before, %d after", before, after)
	}
	if _, err := OS.OpenBeneath("/proc", "self/status", 0); !errors.Is(err, ErrOutside) {
		t.Errorf("through a link of the proc file system: %v", err)
	}
	if _, err := OS.OpenBeneath("/proc", "version", 0); !errors.Is(err, ErrNotRegular) {
		t.Errorf("a file of the proc file system: %v", err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestADirectoryIsReplacedAllTheTime by a link to another place: what opens is
// never there.
func TestADirectoryIsReplacedAllTheTime(t *testing.T) {
	const opens = 3000
	dir := tree(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := unix.Renameat2(unix.AT_FDCWD, at("root/inside"), unix.AT_FDCWD, at("root/away"), unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	defer swapping.Wait()
	defer close(stop)
	fallback := func() (File, error) {
		fd, err := walkWithoutLinks(unix.AT_FDCWD, at("root/inside/file"), unix.O_RDONLY)
		if err != nil {
			return nil, err
		}
		return &osFile{name: "file", fd: fd}, nil
	}
	for way, open := range map[string]func() (File, error){
		"openat2": func() (File, error) { return OS.OpenBeneath(at("root"), "inside/file", 0) },
		"walk":    fallback,
	} {
		opened := 0
		for range opens {
			f, err := open()
			if err != nil {
				if !errors.Is(err, ErrOutside) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
					t.Fatalf("%s: %v", way, err)
				}
				continue
			}
			opened++
			b := make([]byte, 6)
			if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if string(b) != "inside" {
				t.Fatalf("%s: what opened says %q", way, b)
			}
			f.Close()
		}
		t.Logf("%s: %d of %d opened", way, opened, opens)
	}
}
