package storage_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

func TestPassedConforms(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) (storage.FS, string) { return storage.Passed(storage.OS, nil), t.TempDir() })
}

// closed is a file system that opens nothing, as one that a confined process
// sees.
type closed struct{ storage.FS }

func (closed) Open(name string, _ storage.Flag) (storage.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func TestPassedFilesNeedNoOpening(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"image", "parent", "other"} {
		check(t, os.WriteFile(path(name), []byte(name), 0o600))
	}
	check(t, os.Symlink("image", path("link")))
	image, err := os.OpenFile(path("image"), os.O_RDWR, 0)
	check(t, err)
	defer image.Close()
	parent, err := os.Open(path("parent"))
	check(t, err)
	defer parent.Close()
	files := storage.Passed(closed{storage.OS}, []*os.File{parent, image})

	f, err := files.Open(path("image"), storage.ReadWrite)
	check(t, err)
	_, err = f.WriteAt([]byte("IM"), 0)
	check(t, err)
	if f.Name() != path("image") {
		t.Errorf("called %s", f.Name())
	}
	check(t, f.Close())
	b := make([]byte, 5)
	if _, err := image.ReadAt(b, 0); err != nil || !bytes.Equal(b, []byte("IMage")) { // the caller's is open still
		t.Errorf("%s, %v", b, err)
	}
	for name, flag := range map[string]storage.Flag{"parent": 0, "link": 0, "image": 0} {
		f, err := files.Open(path(name), flag)
		check(t, err)
		check(t, f.Close())
	}
	for name, flag := range map[string]storage.Flag{
		"other":  0,
		"parent": storage.ReadWrite, // was opened to be read
	} {
		if f, err := files.Open(path(name), flag); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	if _, err := files.Open(path("gone"), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
}

// TestADuplicateHoldsItsLock: the one who passed the file may close it.
func TestADuplicateHoldsItsLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image")
	check(t, os.WriteFile(name, []byte("x"), 0o600))
	original, err := os.OpenFile(name, os.O_RDWR, 0)
	check(t, err)
	f, err := storage.Passed(storage.OS, []*os.File{original}).Open(name, storage.ReadWrite)
	check(t, err)
	check(t, f.Lock(storage.Exclusive))
	check(t, original.Close())
	other, err := storage.OS.Open(name, storage.ReadWrite)
	check(t, err)
	defer other.Close()
	var inUse *storage.InUseError
	if err := other.Lock(storage.Exclusive); !errors.As(err, &inUse) {
		t.Errorf("the lock went with the original: %v", err)
	}
	check(t, f.Close())
	check(t, other.Lock(storage.Exclusive))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
