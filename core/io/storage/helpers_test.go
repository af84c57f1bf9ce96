package storage_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// create makes a file of the operating system with the content.
func create(t *testing.T, name, content string) storage.File {
	t.Helper()
	f, err := storage.OS.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		t.Fatal(err)
	}
	return f
}

func open(t *testing.T, name string, flag storage.Flag) storage.File {
	t.Helper()
	f, err := storage.OS.Open(name, flag)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// file is the name of a new file with a few bytes.
func file(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "a.vhd")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// openDescriptors is the number of files that this process has open.
func openDescriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
