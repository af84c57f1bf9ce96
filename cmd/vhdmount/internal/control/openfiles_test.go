package control

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// TestServerFiles: what the server's process has open, here this one, and how.
func TestServerFiles(t *testing.T) {
	dir := t.TempDir()
	want := OpenFiles{}
	for name, flags := range map[string][]int{
		"read":    {os.O_RDONLY},
		"written": {os.O_RDWR},
		"both":    {os.O_WRONLY, os.O_RDONLY},
		"closed":  nil,
	} {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, nil, 0o600))
		id := idOf(t, path)
		for _, flag := range flags {
			f, err := os.OpenFile(path, flag, 0)
			check(t, err)
			defer f.Close()
			want[id] = want[id] || flag != os.O_RDONLY
		}
	}
	c := dial(t, start(t, func(context.Context, Request) Response { return Response{} }))
	defer c.Close()
	files, err := c.ServerFiles()
	check(t, err)
	maps.DeleteFunc(files, func(id storage.FileID, _ bool) bool { // the process has others too
		_, wanted := want[id]
		return !wanted && id != idOf(t, filepath.Join(dir, "closed"))
	})
	if !maps.Equal(files, want) {
		t.Errorf("got %v, want %v", files, want)
	}
}

func idOf(t *testing.T, path string) storage.FileID {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Stat(path, &st))
	return storage.FileID{Dev: uint64(st.Dev), Ino: st.Ino}
}
