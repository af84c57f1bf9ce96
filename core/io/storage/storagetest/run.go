package storagetest

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// suite is a file system under test and an empty directory in it.
type suite struct {
	fs  storage.FS
	dir string
}

// Run is the conformance suite of the waist. newFS gives each test a file
// system and a directory that is empty, or, where directories aren't made,
// may be written to. The optional abilities of its files are tested if the
// files have them; Allocate and PunchHole may say storage.ErrNotSupported.
func Run(t *testing.T, newFS func(t *testing.T) (fs storage.FS, dir string)) {
	tests := []struct {
		name string
		run  func(t *testing.T, s suite)
	}{
		{"RandomProgramsMatchTheModel", testModel},
		{"ReadsAreShortAtTheEnd", testReadAtEnd},
		{"WritePastTheEndLeavesAHole", testWritePastEnd},
		{"TruncateForgets", testTruncate},
		{"AllocateKeepsDataAndGrows", testAllocate},
		{"PunchHoleZeroesAndKeepsTheSize", testPunchHole},
		{"NextDataFindsAllData", testNextData},
		{"NowaitReadsAreReads", testNowait},
		{"HugeHoles", testHugeHole},
		{"NonsenseIsRefused", testNonsense},
		{"ReadOnlyFilesRefuseChanges", testReadOnly},
		{"ClosedFilesSaySo", testClosed},
		{"ConcurrentCalls", testConcurrent},
		{"StatDescribes", testStat},
		{"CreateIsExclusive", testCreate},
		{"MissingNames", testMissing},
		{"RenameReplaces", testRename},
		{"LinkSharesTheFile", testLink},
		{"RemovedFilesStayOpen", testRemove},
		{"ResolveIsAbsolute", testResolve},
		{"NothingOutsideIsOpenedBeneath", testOpenBeneath},
		{"SyncDir", testSyncDir},
		{"DirectoriesAreNotRegular", testDirectory},
		{"LocksExclude", testLocks},
		{"LockReplaces", testLockReplaces},
		{"CloseUnlocks", testCloseUnlocks},
		{"LockRefusalsName", testLockError},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fs, dir := newFS(t)
			test.run(t, suite{fs, dir})
		})
	}
}

func (s suite) path(name string) string { return filepath.Join(s.dir, name) }

// create makes a file with the content.
func (s suite) create(t *testing.T, name string, content []byte) storage.File {
	t.Helper()
	f, err := s.fs.Create(s.path(name), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	write(t, f, content, 0)
	return f
}

func (s suite) open(t *testing.T, name string, flag storage.Flag) storage.File {
	t.Helper()
	f, err := s.fs.Open(s.path(name), flag)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func write(t *testing.T, f storage.File, p []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(p, off); n != len(p) || err != nil {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

// content is all of the file, by its size.
func content(t *testing.T, f storage.File) []byte {
	t.Helper()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, size)
	if n, err := f.ReadAt(p, 0); n != len(p) || err != nil && err != io.EOF {
		t.Fatalf("ReadAt(%d bytes, 0) = %d, %v", size, n, err)
	}
	return p
}

func expectContent(t *testing.T, f storage.File, want []byte) {
	t.Helper()
	got := content(t, f)
	if len(got) != len(want) {
		t.Errorf("%s has %d bytes, not %d", f.Name(), len(got), len(want))
		return
	}
	if !bytes.Equal(got, want) {
		i := firstDifference(got, want)
		t.Errorf("%s: byte %d is %#x, not %#x", f.Name(), i, got[i], want[i])
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

func expectError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// supported tells whether err isn't ErrNotSupported, and fails the test for
// any other error.
func supported(t *testing.T, what string, err error) bool {
	t.Helper()
	if errors.Is(err, storage.ErrNotSupported) {
		t.Logf("%s: %v", what, err)
		return false
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return true
}

// pattern is n bytes of which none is zero, different from the next seed's.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte((i+31*int(seed))%251) + 1
	}
	return p
}

// growTo is p with zeros up to n bytes.
func growTo(p []byte, n int64) []byte {
	return append(p, make([]byte, max(0, n-int64(len(p))))...)
}
