package storagetest

import (
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// changes are the calls of a file that change it.
func changes(f storage.File) map[string]func() error {
	return map[string]func() error{
		"WriteAt":   func() error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"Truncate":  func() error { return f.Truncate(1) },
		"Allocate":  func() error { return f.Allocate(0, 4096) },
		"PunchHole": func() error { return f.PunchHole(0, 4096) },
	}
}

func testReadOnly(t *testing.T, s suite) {
	s.create(t, "a", pattern(100, 1))
	f := s.open(t, "a", 0)
	for name, call := range changes(f) {
		expectError(t, name, call(), storage.ErrReadOnly)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	expectContent(t, f, pattern(100, 1))
}

func testClosed(t *testing.T, s suite) {
	f := s.create(t, "a", pattern(100, 1))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	calls := changes(f)
	p := make([]byte, 1)
	calls["ReadAt"] = func() error { _, err := f.ReadAt(p, 0); return err }
	calls["Size"] = func() error { _, err := f.Size(); return err }
	calls["Sync"] = f.Sync
	calls["Lock"] = func() error { return f.Lock(storage.Shared) }
	calls["Stat"] = func() error { _, err := f.Stat(); return err }
	calls["Close"] = f.Close
	if r, ok := f.(storage.NowaitReaderAt); ok {
		calls["ReadAtNowait"] = func() error { _, err := r.ReadAtNowait(p, 0); return err }
	}
	if h, ok := f.(storage.HoleFinder); ok {
		calls["NextData"] = func() error { _, _, err := h.NextData(0); return err }
	}
	for name, call := range calls {
		expectError(t, name, call(), storage.ErrClosed)
	}
	if f.Name() != s.path("a") {
		t.Errorf("Name() = %q", f.Name())
	}
	expectContent(t, s.open(t, "a", 0), pattern(100, 1))
}

func testStat(t *testing.T, s suite) {
	f := s.create(t, "a", pattern(1000, 1))
	s.create(t, "b", nil)
	byFile, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	byName, err := s.fs.Stat(s.path("a"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.fs.Stat(s.path("b"))
	if err != nil {
		t.Fatal(err)
	}
	if byFile.ID != byName.ID || byFile.ID == other.ID {
		t.Errorf("ID %v by file, %v by name; another file has %v", byFile.ID, byName.ID, other.ID)
	}
	if byName.Size != 1000 || byName.Mode != 0o600 {
		t.Errorf("size %d, mode %v", byName.Size, byName.Mode)
	}
	if age := time.Since(byName.ModTime); age < -time.Minute || age > time.Minute {
		t.Errorf("written %v ago", age)
	}
	if dir, err := s.fs.Stat(s.dir); err != nil || !dir.Mode.IsDir() {
		t.Errorf("Stat of the directory: mode %v, %v", dir.Mode, err)
	}
}

func testCreate(t *testing.T, s suite) {
	s.create(t, "a", pattern(100, 1))
	_, err := s.fs.Create(s.path("a"), 0o600)
	expectError(t, "Create", err, fs.ErrExist)
	expectContent(t, s.open(t, "a", 0), pattern(100, 1))
}

func testMissing(t *testing.T, s suite) {
	s.create(t, "b", nil)
	missing := s.path("missing")
	calls := map[string]func() error{
		"Open":    func() error { _, err := s.fs.Open(missing, storage.ReadWrite); return err },
		"Stat":    func() error { _, err := s.fs.Stat(missing); return err },
		"Resolve": func() error { _, err := s.fs.Resolve(missing); return err },
		"Rename":  func() error { return s.fs.Rename(missing, s.path("c")) },
		"Link":    func() error { return s.fs.Link(missing, s.path("c")) },
		"Remove":  func() error { return s.fs.Remove(missing) },
		"SyncDir": func() error { return s.fs.SyncDir(missing) },
	}
	for name, call := range calls {
		expectError(t, name, call(), fs.ErrNotExist)
	}
}

func testRename(t *testing.T, s suite) {
	s.create(t, "a", pattern(100, 1))
	old := s.create(t, "b", pattern(200, 2))
	if err := s.fs.Rename(s.path("a"), s.path("b")); err != nil {
		t.Fatal(err)
	}
	expectContent(t, s.open(t, "b", 0), pattern(100, 1))
	expectContent(t, old, pattern(200, 2))
	_, err := s.fs.Open(s.path("a"), 0)
	expectError(t, "Open of the old name", err, fs.ErrNotExist)
	if err := s.fs.Rename(s.path("b"), s.path("c")); err != nil {
		t.Fatal(err)
	}
	expectContent(t, s.open(t, "c", 0), pattern(100, 1))
}

func testLink(t *testing.T, s suite) {
	f := s.create(t, "a", pattern(100, 1))
	if !supported(t, "Link", s.fs.Link(s.path("a"), s.path("b"))) {
		return
	}
	s.create(t, "c", nil)
	expectError(t, "Link", s.fs.Link(s.path("a"), s.path("c")), fs.ErrExist)

	write(t, f, pattern(100, 2), 0)
	second := s.open(t, "b", 0)
	expectContent(t, second, pattern(100, 2))
	first, err1 := f.Stat()
	info, err2 := second.Stat()
	if err1 != nil || err2 != nil || first.ID != info.ID {
		t.Errorf("%v, %v and %v, %v", first.ID, err1, info.ID, err2)
	}
	// Two names of one file: POSIX has Rename do nothing.
	if err := s.fs.Rename(s.path("a"), s.path("b")); err != nil {
		t.Error(err)
	}
	if err := s.fs.Remove(s.path("a")); err != nil {
		t.Error(err)
	}
	expectContent(t, s.open(t, "b", 0), pattern(100, 2))
}

func testRemove(t *testing.T, s suite) {
	f := s.create(t, "a", pattern(100, 1))
	if err := s.fs.Remove(s.path("a")); err != nil {
		t.Fatal(err)
	}
	_, err := s.fs.Open(s.path("a"), 0)
	expectError(t, "Open", err, fs.ErrNotExist)
	write(t, f, pattern(100, 2), 100)
	expectContent(t, f, append(pattern(100, 1), pattern(100, 2)...))
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	s.create(t, "a", pattern(10, 3))
	expectContent(t, s.open(t, "a", 0), pattern(10, 3))
}

func testResolve(t *testing.T, s suite) {
	s.create(t, "a", nil)
	got, err := s.fs.Resolve(s.path("a"))
	if err != nil || !filepath.IsAbs(got) || filepath.Base(got) != "a" {
		t.Fatalf("Resolve = %q, %v", got, err)
	}
	for _, name := range []string{got, s.dir + "/./a", s.dir + "//a"} {
		if again, err := s.fs.Resolve(name); again != got || err != nil {
			t.Errorf("Resolve(%q) = %q, %v, want %q", name, again, err, got)
		}
	}
	if dir, err := s.fs.Resolve(s.dir); dir != filepath.Dir(got) || err != nil {
		t.Errorf("Resolve of the directory = %q, %v", dir, err)
	}
}

func testOpenBeneath(t *testing.T, s suite) {
	s.create(t, "a", pattern(100, 1))
	dir, err := s.fs.Resolve(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	above, last := filepath.Dir(dir), filepath.Base(dir)
	for root, name := range map[string]string{dir: "a", above: filepath.Join(last, "a")} {
		f, err := s.fs.OpenBeneath(root, name, storage.ReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name() != filepath.Join(dir, "a") {
			t.Errorf("Name() = %q", f.Name())
		}
		expectContent(t, f, pattern(100, 1))
		write(t, f, pattern(100, 1), 0)
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"../" + last + "/a", "x/../../" + last + "/a", filepath.Join(dir, "a"), ".."} {
		_, err := s.fs.OpenBeneath(dir, name, 0)
		expectError(t, "OpenBeneath of "+name, err, storage.ErrOutside)
	}
	_, err = s.fs.OpenBeneath(dir, "missing", 0)
	expectError(t, "OpenBeneath", err, fs.ErrNotExist)
	_, err = s.fs.OpenBeneath(filepath.Join(dir, "missing"), "a", 0)
	expectError(t, "OpenBeneath", err, fs.ErrNotExist)
	_, err = s.fs.OpenBeneath(above, last, 0)
	expectError(t, "OpenBeneath of a directory", err, storage.ErrNotRegular)
	f, err := s.fs.OpenBeneath(dir, "a", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	expectError(t, "WriteAt", second(f.WriteAt([]byte("x"), 0)), storage.ErrReadOnly)
}

func second(_ int, err error) error { return err }

func testSyncDir(t *testing.T, s suite) {
	f := s.create(t, "a", nil)
	if err := s.fs.SyncDir(s.dir); err != nil {
		t.Error(err)
	}
	if err := s.fs.SyncDir(s.path("a")); err == nil {
		t.Errorf("SyncDir of %s, a file, succeeds", f.Name())
	}
}

func testDirectory(t *testing.T, s suite) {
	s.create(t, "a", nil)
	for _, flag := range []storage.Flag{0, storage.ReadWrite, storage.NoFollow, storage.ReadWrite | storage.NoFollow} {
		_, err := s.fs.Open(s.dir, flag)
		expectError(t, "Open of a directory", err, storage.ErrNotRegular)
	}
	_, err := s.fs.Create(s.dir, 0o600)
	expectError(t, "Create over a directory", err, fs.ErrExist)
	if err := s.fs.Rename(s.path("a"), s.dir); err == nil {
		t.Error("Rename over a directory succeeds")
	}
}
