package storagetest_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// sectors is a sector of each letter: "AB" is 1024 bytes; "." is zeros.
func sectors(letters string) []byte {
	var p []byte
	for _, c := range []byte(letters) {
		if c == '.' {
			c = 0
		}
		p = append(p, bytes.Repeat([]byte{c}, 512)...)
	}
	return p
}

// letters is the reverse of sectors; "-" is a name without a file, "?" a
// sector that isn't all one byte.
func letters(t *testing.T, on storage.FS, name string) string {
	t.Helper()
	p, err := readFile(on, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	var s []byte
	for part := range slices.Chunk(p, 512) {
		c := part[0]
		if !bytes.Equal(part, bytes.Repeat([]byte{c}, len(part))) {
			c = '?'
		}
		if c == 0 {
			c = '.'
		}
		s = append(s, c)
	}
	return string(s)
}

func readFile(on storage.FS, name string) ([]byte, error) {
	f, err := on.Open(name, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	p := make([]byte, size)
	if _, err := f.ReadAt(p, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return p, nil
}

// program makes calls that must succeed.
type program struct {
	t  *testing.T
	fs storage.FS
}

func (p program) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p program) create(name, content string) storage.File {
	p.t.Helper()
	f, err := p.fs.Create(name, 0o600)
	p.must(err)
	p.t.Cleanup(func() { _ = f.Close() })
	if content != "" {
		p.write(f, content, 0)
	}
	return f
}

// stable is create and all the syncs that it takes.
func (p program) stable(name, content string) storage.File {
	p.t.Helper()
	f := p.create(name, content)
	p.must(f.Sync())
	p.must(p.fs.SyncDir("/"))
	return f
}

// write writes whole sectors, from that one on.
func (p program) write(f storage.File, content string, sector int64) {
	p.t.Helper()
	_, err := f.WriteAt(sectors(content), sector*512)
	p.must(err)
}

// outcomes is what the files of these names can be after a power cut at the
// last point, each once, sorted; files are separated by a space.
func outcomes(t *testing.T, c *storagetest.Crash, names ...string) []string {
	t.Helper()
	cut := c.Cut(c.Points())
	found := map[string]bool{}
	for i := range cut.States() {
		m := cut.State(storagetest.Nth(i))
		line := ""
		for j, name := range names {
			if j > 0 {
				line += " "
			}
			line += letters(t, m, name)
		}
		found[line] = true
	}
	return slices.Sorted(maps.Keys(found))
}
