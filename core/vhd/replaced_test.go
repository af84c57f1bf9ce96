package vhd_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// swapping is the operating system's files under somebody who replaces a
// directory at a given moment: after the nth call of a kind with a name.
type swapping struct {
	storage.FS
	after string // "open", "stat" or "resolve"
	name  string
	nth   int // which such call
	swap  func()
	calls int
	opens []string // files that were opened
}

func (s *swapping) did(op, name string) {
	if op == s.after && name == s.name {
		if s.calls++; s.calls == s.nth {
			s.swap()
		}
	}
}

func (s *swapping) Open(name string, flag storage.Flag) (storage.File, error) {
	f, err := s.FS.Open(name, flag)
	return s.opened(name, f, err)
}

func (s *swapping) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	f, err := s.FS.OpenBeneath(dir, name, flag)
	return s.opened(filepath.Join(dir, name), f, err)
}

func (s *swapping) opened(name string, f storage.File, err error) (storage.File, error) {
	if err == nil {
		s.opens = append(s.opens, name)
	}
	s.did("open", name)
	return f, err
}

func (s *swapping) Stat(name string) (storage.Info, error) {
	info, err := s.FS.Stat(name)
	s.did("stat", name)
	return info, err
}

func (s *swapping) Resolve(name string) (string, error) {
	path, err := s.FS.Resolve(name)
	s.did("resolve", name)
	return path, err
}

// trap is a directory of an intruder's with a chain of images: vm/sub/leaf,
// whose parent is vm/sub/in/shadow, whose parent, raw, is passwd beside it; and
// the directory that the intruder has a mind to have read: etc, with a shadow
// and a passwd of its own.
type trap struct{ dir string }

func newTrap(t *testing.T) trap {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	p := trap{dir}
	for _, name := range []string{"vm", "vm/sub", "vm/sub/in", "etc"} {
		must(t, os.Mkdir(p.at(name), 0o700))
	}
	must(t, os.WriteFile(p.at("vm/sub/in/passwd"), noise(familySize), 0o600))
	must(t, os.WriteFile(p.at("etc/passwd"), zeros(familySize), 0o600))
	for _, name := range []string{"etc/leaf", "etc/shadow"} {
		must(t, os.WriteFile(p.at(name), zeros(familySize), 0o600))
	}
	childOf(format.UUID{}, "", pathLocator(t, format.CodeW2ru, "passwd")).write(t, storage.OS, p.at("vm/sub/in/shadow"))
	id := idOf(t, storage.OS, p.at("vm/sub/in/shadow"))
	childOf(id, "", pathLocator(t, format.CodeW2ru, "in/shadow")).write(t, storage.OS, p.at("vm/sub/leaf"))
	showsNoise(t, p.leaf(), vhd.Options{})
	return p
}

func (p trap) at(name string) string { return filepath.Join(p.dir, name) }
func (p trap) leaf() string          { return p.at("vm/sub/leaf") }

// replace puts a link to etc in the place of a directory.
func (p trap) replace(t *testing.T, name string) {
	t.Helper()
	must(t, os.Rename(p.at(name), p.at(name)+".away"))
	must(t, os.Symlink(p.at("etc"), p.at(name)))
}

// Whoever owns the directory of an image may replace any part of it at any
// moment.
func TestADirectoryReplacedBetweenCheckAndOpen(t *testing.T) {
	tests := map[string]struct {
		after, name string
		nth         int
		replaced    string
		want        error // nil: one that has the text
		says        string
	}{
		"the leaf's, after it was opened":          {"open", "vm/sub/leaf", 1, "vm/sub", nil, "another file"},
		"the leaf's, after it was resolved":        {"resolve", "vm/sub/leaf", 1, "vm/sub", nil, "another file"},
		"the leaf's, after it was compared":        {"stat", "vm/sub/leaf", 1, "vm/sub", vhd.ErrParentMissing, ""},
		"a parent's, after it was resolved":        {"resolve", "vm/sub/in", 1, "vm/sub/in", vhd.ErrParentOutside, ""},
		"a parent's, after it was looked at":       {"stat", "vm/sub/in/shadow", 1, "vm/sub/in", vhd.ErrParentOutside, ""},
		"all of them, after the parent was found":  {"stat", "vm/sub/in/shadow", 1, "vm/sub", vhd.ErrParentOutside, ""},
		"a parent's, after that was opened":        {"open", "vm/sub/in/shadow", 1, "vm/sub/in", vhd.ErrParentOutside, ""},
		"a grandparent's, after it was looked at":  {"stat", "vm/sub/in/passwd", 1, "vm/sub/in", vhd.ErrParentOutside, ""},
		"a directory above, after a parent's open": {"open", "vm/sub/in/shadow", 1, "vm/sub", vhd.ErrParentMissing, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := newTrap(t)
			fsys := &swapping{FS: storage.OS, after: test.after, name: p.at(test.name), nth: test.nth}
			fsys.swap = func() { p.replace(t, test.replaced) }
			img, err := vhd.Open(p.leaf(), vhd.Options{FS: fsys, ReadOnly: true})
			if fsys.calls < test.nth {
				t.Fatalf("the moment never came")
			}
			if err == nil {
				defer img.Close()
				t.Errorf("it opened: %v", fsys.opens)
			} else if test.want != nil {
				wantError{test.want, nil}.check(t, err, p.at("vm/sub"))
			} else if !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v; want one with %q", err, test.says)
			}
			for _, opened := range fsys.opens {
				if opened == p.at("vm/sub/in/passwd") {
					t.Errorf("opened %s, which is %s now", opened, p.at("etc/passwd"))
				}
			}
		})
	}
}

// TestADirectoryReplacedAllTheTime: what opens shows the intruder's own bytes,
// never those of the other directory.
func TestADirectoryReplacedAllTheTime(t *testing.T) {
	const opens = 400
	for _, replaced := range []string{"vm/sub", "vm/sub/in"} {
		t.Run(filepath.Base(replaced), func(t *testing.T) {
			p := newTrap(t)
			must(t, os.Symlink(p.at("etc"), p.at("link")))
			stop := make(chan struct{})
			var swapper sync.WaitGroup
			swapper.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						if err := unix.Renameat2(unix.AT_FDCWD, p.at(replaced), unix.AT_FDCWD, p.at("link"), unix.RENAME_EXCHANGE); err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
			defer swapper.Wait()
			defer close(stop)
			opened := 0
			for range opens {
				img, err := vhd.Open(p.leaf(), vhd.Options{ReadOnly: true})
				if err != nil {
					continue
				}
				opened++
				b := make([]byte, familySize)
				if _, err := img.ReadAt(b, 0); err != nil {
					t.Fatal(err)
				}
				if string(b) != string(noise(familySize)) {
					t.Fatal("it shows a file of the other directory")
				}
				must(t, img.Close())
			}
			t.Logf("%d of %d opened", opened, opens)
		})
	}
}
