package rawfile_test

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/blockdev/blockdevtest"
	"github.com/vhdmount/vhdmount/core/io/rawfile"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// create makes a file of size bytes.
func create(t *testing.T, fsys storage.FS, name string, size int64) {
	t.Helper()
	f, err := fsys.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// open opens a file that is there.
func open(t *testing.T, fsys storage.FS, name string, readOnly bool) *rawfile.Device {
	t.Helper()
	d, err := rawfile.Open(name, rawfile.Options{FS: fsys, ReadOnly: readOnly})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestConformance(t *testing.T) {
	run := func(fsys storage.FS, name func(*testing.T) string, opts ...blockdevtest.Option) func(*testing.T) {
		return func(t *testing.T) {
			blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
				n := name(t)
				_ = fsys.Remove(n)
				create(t, fsys, n, size)
				return open(t, fsys, n, false)
			}, append(opts, blockdevtest.WithTornReads())...)
		}
	}
	small, few := blockdevtest.WithSizes(512, 300<<10), blockdevtest.WithOps(100)
	inMemory := func(*testing.T) string { return "/disk.raw" }
	t.Run("memory", run(storagetest.NewMemory(), inMemory, blockdevtest.WithDiscard(blockdevtest.DiscardZeros), small))
	noHoles := storagetest.NewFault(storagetest.NewMemory(), storagetest.Rule{Op: storagetest.OpPunchHole, Err: storage.ErrNotSupported})
	t.Run("no holes", run(noHoles, inMemory, blockdevtest.WithDiscard(blockdevtest.DiscardKeeps), small, few))
	t.Run("os", run(storage.OS, func(t *testing.T) string { return filepath.Join(t.TempDir(), "disk.raw") }, small, few))
}

func TestConformanceReadOnly(t *testing.T) {
	blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
		fsys := storagetest.NewMemory()
		create(t, fsys, "/disk.raw", size)
		return open(t, fsys, "/disk.raw", true)
	}, blockdevtest.WithReadOnly(), blockdevtest.WithSizes(300<<10))
}

func TestOpenRefuses(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/small", 511)
	if _, err := rawfile.Open("/small", rawfile.Options{FS: fsys}); !errors.Is(err, rawfile.ErrTooSmall) {
		t.Errorf("a file of 511 bytes: %v", err)
	}
	if _, err := rawfile.Open(t.TempDir(), rawfile.Options{}); !errors.Is(err, storage.ErrNotRegular) {
		t.Errorf("a directory: %v", err)
	}
	create(t, fsys, "/disk", 4096)
	first := open(t, fsys, "/disk", false)
	for _, readOnly := range []bool{false, true} {
		if _, err := rawfile.Open("/disk", rawfile.Options{FS: fsys, ReadOnly: readOnly}); !errors.Is(err, storage.ErrInUse) {
			t.Errorf("a second open (read-only: %v) beside a writer: %v", readOnly, err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, fsys, "/disk", true)
	open(t, fsys, "/disk", true) // readers share
}

func TestBytesAfterTheLastSectorAreNotShown(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/disk", 4096+100)
	d := open(t, fsys, "/disk", false)
	if d.Size() != 4096 {
		t.Errorf("size %d, want 4096", d.Size())
	}
	if _, err := d.WriteAt(make([]byte, 512), 4096); !errors.Is(err, blockdev.ErrOutOfRange) {
		t.Errorf("a write to them: %v", err)
	}
}

func TestExtentsAreTheFilesHoles(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/disk", 1<<20)
	d := open(t, fsys, "/disk", false)
	if _, err := d.WriteAt(bytes.Repeat([]byte{1}, 128<<10), 256<<10); err != nil {
		t.Fatal(err)
	}
	var got []blockdev.Extent
	for e, err := range d.Extents(0, d.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	want := []blockdev.Extent{
		{Offset: 0, Length: 256 << 10, Kind: blockdev.Hole, Depth: -1},
		{Offset: 256 << 10, Length: 128 << 10, Kind: blockdev.Data, File: "/disk", FileOffset: 256 << 10},
		{Offset: 384 << 10, Length: 640 << 10, Kind: blockdev.Hole, Depth: -1},
	}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("extents %+v\nwant    %+v", got, want)
	}
}

func TestAFileThatIsCutIsAnError(t *testing.T) {
	name := filepath.Join(t.TempDir(), "disk")
	create(t, storage.OS, name, 8192)
	d := open(t, storage.OS, name, false)
	if err := unix.Truncate(name, 4096); err != nil {
		t.Fatal(err)
	}
	n, err := d.ReadAt(make([]byte, 4096), 2048)
	if n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
	if n, err := d.ReadAtNowait(make([]byte, 4096), 4096); n != 0 || err == nil {
		t.Errorf("ReadAtNowait = %d, %v", n, err)
	}
}

func TestErrorsHaveTheNamesOfTheWaist(t *testing.T) {
	tests := []struct {
		on   storagetest.Op
		err  error
		want error
		do   func(*rawfile.Device) error
	}{
		{storagetest.OpWrite, unix.ENOSPC, blockdev.ErrNoSpace, write},
		{storagetest.OpWrite, unix.EIO, unix.EIO, write},
		{storagetest.OpPunchHole, unix.EIO, unix.EIO, func(d *rawfile.Device) error { return d.Discard(0, 512) }},
		{storagetest.OpPunchHole, unix.ENOSPC, blockdev.ErrNoSpace, func(d *rawfile.Device) error { return d.WriteZeroes(0, 512) }},
		{storagetest.OpRead, unix.EIO, unix.EIO, func(d *rawfile.Device) error {
			_, err := d.ReadAt(make([]byte, 512), 0)
			return err
		}},
	}
	for _, test := range tests {
		fsys := storagetest.NewFault(storagetest.NewMemory())
		create(t, fsys, "/disk", 4096)
		d := open(t, fsys, "/disk", false)
		fsys.Add(storagetest.Rule{Op: test.on, Err: test.err})
		if err := test.do(d); !errors.Is(err, test.want) {
			t.Errorf("%s fails with %v: %v", test.on, test.err, err)
		}
		fsys.Heal()
	}
}

func write(d *rawfile.Device) error {
	_, err := d.WriteAt(bytes.Repeat([]byte{7}, 512), 0)
	return err
}

func TestAFailedSyncIsFinal(t *testing.T) {
	fsys := storagetest.NewFault(storagetest.NewMemory())
	create(t, fsys, "/disk", 4096)
	d := open(t, fsys, "/disk", false)
	if err := errors.Join(write(d), d.Flush(), d.Err()); err != nil {
		t.Fatal(err)
	}
	fsys.Add(storagetest.Rule{Op: storagetest.OpSync, Err: unix.EIO})
	if err := d.Flush(); !errors.Is(err, unix.EIO) {
		t.Errorf("Flush: %v", err)
	}
	fsys.Heal()
	for name, err := range map[string]error{"a later flush": d.Flush(), "a write": write(d), "a discard": d.Discard(0, 512), "Err": d.Err()} {
		if !errors.Is(err, blockdev.ErrReadOnly) || !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.ReadAt(make([]byte, 512), 0); err != nil {
		t.Errorf("a read: %v", err)
	}
	if err := d.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("Close: %v", err)
	}
	again := open(t, fsys, "/disk", false) // the file and its lock were let go
	if err := again.Err(); err != nil {
		t.Error(err)
	}
}
