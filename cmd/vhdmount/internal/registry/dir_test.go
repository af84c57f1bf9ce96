package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func environment(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// nobody is a user without a directory in /run/user.
const nobody = 4242424

func TestLocate(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp")
	for name, c := range map[string]struct {
		env  []string
		uid  int
		want string
	}{
		"session":            {[]string{"XDG_RUNTIME_DIR", "/run/user/1000"}, 1000, "/run/user/1000/vhdmount"},
		"no session":         {nil, nobody, "/tmp/vhdmount-4242424"},
		"root":               {nil, 0, "/run/vhdmount"},
		"root in a session":  {[]string{"XDG_RUNTIME_DIR", "/run/user/1000"}, 0, "/run/vhdmount"},
		"override":           {[]string{"VHDMOUNT_RUNTIME_DIR", "/x", "XDG_RUNTIME_DIR", "/y"}, 1000, "/x"},
		"override for root":  {[]string{"VHDMOUNT_RUNTIME_DIR", "/x"}, 0, "/x"},
		"empty is like none": {[]string{"XDG_RUNTIME_DIR", "", "VHDMOUNT_RUNTIME_DIR", ""}, nobody, "/tmp/vhdmount-4242424"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Locate(environment(c.env...), c.uid); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestOpenMakesAClosedDirectoryAndAcceptsItAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vhdmount")
	for range 2 {
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if d.Path() != path {
			t.Errorf("path %s, want %s", d.Path(), path)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", info.Mode(), err)
	}
}

func TestOpenRefusesWhatOthersMayHavePrepared(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, path string){
		"symbolic link": func(t *testing.T, path string) {
			check(t, os.Symlink(t.TempDir(), path))
		},
		"regular file": func(t *testing.T, path string) {
			check(t, os.WriteFile(path, nil, 0o600))
		},
		"open to the group": func(t *testing.T, path string) {
			check(t, os.Mkdir(path, 0o700))
			check(t, os.Chmod(path, 0o770))
		},
		"open to all": func(t *testing.T, path string) {
			check(t, os.Mkdir(path, 0o700))
			check(t, os.Chmod(path, 0o1777))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vhdmount")
			prepare(t, path)
			if _, err := Open(path); !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v; want ErrUnsafe with the path", err)
			}
		})
	}
}

func TestOpenRefusesAnotherUsersDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		// Without root no other user's directory can be made; / is one that exists.
		if _, err := Open("/"); !errors.Is(err, ErrUnsafe) {
			t.Errorf("got %v; want ErrUnsafe", err)
		}
		return
	}
	path := filepath.Join(t.TempDir(), "vhdmount")
	check(t, os.Mkdir(path, 0o700))
	check(t, os.Chown(path, nobody, -1))
	if _, err := Open(path); !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), "belongs to user 4242424") {
		t.Errorf("got %v; want ErrUnsafe with the owner", err)
	}
}

func TestOpenSaysThatTheDirectoryAboveIsMissing(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "none", "vhdmount"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestMountpointsHaveTheImagesNameAndNeverCollide(t *testing.T) {
	d := open(t)
	var made []string
	for _, image := range []string{"/a/disk.vhd", "/b/disk.vhd", "/b/disk.avhd", "/c/../..", "/x/-rf.vhd", "/x/käse disk.vhd"} {
		path, err := d.MakeMountpoint(image)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != fs.ModeDir|0o700 {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
		rel, _ := filepath.Rel(d.Path(), path)
		made = append(made, rel)
	}
	got, want := strings.Join(made, " "), "mnt/disk mnt/disk-2 mnt/disk-3 mnt/disk-4 mnt/rf mnt/k_se_disk"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRemoveMountpointRemovesOnlyItsOwnAndOnlyEmpty(t *testing.T) {
	d := open(t)
	path, err := d.MakeMountpoint("disk.vhd")
	check(t, err)
	file := filepath.Join(path, "precious")
	check(t, os.WriteFile(file, nil, 0o600))
	if err := d.RemoveMountpoint(path); err == nil {
		t.Error("a directory with something in it was removed")
	}
	check(t, os.Remove(file))
	check(t, d.RemoveMountpoint(path))
	check(t, d.RemoveMountpoint(path)) // gone already
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	elsewhere := t.TempDir()
	check(t, d.RemoveMountpoint(elsewhere))
	if _, err := os.Stat(elsewhere); err != nil {
		t.Errorf("a directory that isn't ours: %v", err)
	}
}

func open(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "run [1]")) // a name that a pattern would take for itself
	check(t, err)
	return d
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLogsOfTheDeadAreKeptWithinBounds(t *testing.T) {
	d := open(t)
	begin := time.Now().Add(-time.Hour)
	log := func(name string, age int) {
		t.Helper()
		check(t, os.WriteFile(d.Log(name), []byte("x"), 0o600))
		at := begin.Add(time.Duration(age) * time.Minute)
		check(t, os.Chtimes(d.Log(name), at, at))
	}
	for i := range maxDeadLogs + 3 {
		log(fmt.Sprintf("dead-%02d", i), i)
	}
	log("alive", -1) // the oldest
	held, err := os.Open(d.Log("alive"))
	check(t, err)
	defer held.Close()
	check(t, unix.Flock(int(held.Fd()), unix.LOCK_SH))
	_, err = Open(d.Path())
	check(t, err)
	left, err := filepath.Glob(filepath.Join(escape(d.Path()), "*.log"))
	check(t, err)
	if len(left) != maxDeadLogs+1 || filepath.Base(left[0]) != "alive.log" || filepath.Base(left[1]) != "dead-03.log" {
		t.Errorf("left: %v", left)
	}
}
