package blktap

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestAvailableAsksForAModuleAndItsControlDevice(t *testing.T) {
	dir := t.TempDir()
	y := &system{dir: filepath.Join(dir, "dev"), proc: dir}
	if err := y.available(); !errors.Is(err, ErrNoModule) {
		t.Errorf("no /proc/misc: %v", err)
	}
	misc := filepath.Join(dir, "misc")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(misc, " 61 fuse\n")
	if err := y.available(); !errors.Is(err, ErrNoModule) {
		t.Errorf("another module: %v", err)
	}
	write(misc, " 61 blktap-control\n")
	err := y.available()
	if root := os.Geteuid() == 0; root && err != nil || !root && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no node yet: %v", err)
	}
	if err := os.Mkdir(y.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(y.dir, "control"), "")
	if err := y.available(); err != nil {
		t.Errorf("a node that opens: %v", err)
	}
	if entries, _ := os.ReadDir(y.dir); len(entries) != 1 {
		t.Errorf("asking made something: %v", entries)
	}
}
