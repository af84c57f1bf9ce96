package storage_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// oddFiles is a directory with one of everything that isn't a regular file.
func oddFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	socket, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	for _, err := range []error{
		os.WriteFile(at("regular"), []byte("content"), 0o600),
		os.Mkdir(at("directory"), 0o700),
		unix.Mkfifo(at("fifo"), 0o600),
		os.Symlink("regular", at("link")),
		os.Symlink("fifo", at("link-to-fifo")),
		os.Symlink("link-to-itself", at("link-to-itself")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpenTakesOnlyRegularFiles(t *testing.T) {
	dir := oddFiles(t)
	tests := []struct {
		name     string
		follow   string // what the error says; empty where the file opens
		nofollow string
	}{
		{"regular", "", ""},
		{"directory", "a directory", "a directory"},
		{"fifo", "a FIFO", "a FIFO"},
		{"socket", "a socket", "a socket"},
		{"link", "", "a symbolic link"},
		{"link-to-fifo", "a FIFO", "a symbolic link"},
		{"link-to-itself", "too many levels", "a symbolic link"},
		{"/dev/null", "a character device", "a character device"},
		{"/proc/self/status", "", "the proc file system"},
	}
	before := openDescriptors(t)
	for _, test := range tests {
		name := test.name
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		for flag, says := range map[storage.Flag]string{0: test.follow, storage.NoFollow: test.nofollow} {
			f, err := storage.OS.Open(name, flag)
			if says == "" {
				if err != nil {
					t.Errorf("%s: %v", test.name, err)
				} else if err := f.Close(); err != nil {
					t.Errorf("%s: %v", test.name, err)
				}
				continue
			}
			if !errors.Is(err, storage.ErrNotRegular) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s, flag %v: error %v, want one with %q", test.name, flag, err, says)
			}
		}
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors open before, %d after", before, after)
	}
}

// TestOpenForWritingTakesOnlyRegularFiles: the kernel has other answers there.
func TestOpenForWritingTakesOnlyRegularFiles(t *testing.T) {
	dir := oddFiles(t)
	for _, name := range []string{"directory", "fifo", "socket"} {
		_, err := storage.OS.Open(filepath.Join(dir, name), storage.ReadWrite)
		if !errors.Is(err, storage.ErrNotRegular) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestResolveFollowsLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(oddFiles(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, name := range []string{"link", "./directory/../link", filepath.Join(dir, "link")} {
		if got, err := storage.OS.Resolve(name); err != nil || got != filepath.Join(dir, "regular") {
			t.Errorf("Resolve(%q) = %q, %v", name, got, err)
		}
	}
	if _, err := storage.OS.Resolve("link-to-itself"); err == nil {
		t.Error("a link to itself resolves")
	}
}

func TestCreateDoesNotFollowLinks(t *testing.T) {
	dir := t.TempDir()
	link, target := filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.OS.Create(link, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the target is there: %v", err)
	}
}

func TestStatKnowsTheKinds(t *testing.T) {
	dir := oddFiles(t)
	want := map[string]fs.FileMode{
		"regular": 0, "link": 0, "directory": fs.ModeDir, "fifo": fs.ModeNamedPipe, "socket": fs.ModeSocket,
		"/dev/null": fs.ModeDevice | fs.ModeCharDevice,
	}
	for name, kind := range want {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, name)
		}
		info, err := storage.OS.Stat(path)
		if err != nil || info.Mode.Type() != kind {
			t.Errorf("%s: mode %v, %v", name, info.Mode, err)
		}
		real, err := os.Stat(path)
		if err != nil || info.Mode.Perm() != real.Mode().Perm() || !info.ModTime.Equal(real.ModTime()) || info.Size != real.Size() {
			t.Errorf("%s: %+v differs from %v, %v", name, info, real, err)
		}
	}
}
