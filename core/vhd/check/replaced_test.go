package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// watched is the operating system's files under somebody who acts right after
// a call: "open vm/child.vhd", "stat …", "resolve …".
type watched struct {
	storage.FS
	dir    string
	acts   map[string]func()
	opened []storage.FileID
}

func (w *watched) did(op, name string) {
	key := op + " " + strings.TrimPrefix(name, w.dir+"/")
	act := w.acts[key]
	delete(w.acts, key)
	if act != nil {
		act()
	}
}

func (w *watched) Open(name string, flag storage.Flag) (storage.File, error) {
	f, err := w.FS.Open(name, flag)
	return w.note(name, f, err)
}

func (w *watched) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	f, err := w.FS.OpenBeneath(dir, name, flag)
	return w.note(filepath.Join(dir, name), f, err)
}

func (w *watched) note(name string, f storage.File, err error) (storage.File, error) {
	if err == nil {
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		w.opened = append(w.opened, info.ID)
	}
	w.did("open", name)
	return f, err
}

func (w *watched) Stat(name string) (storage.Info, error) {
	info, err := w.FS.Stat(name)
	w.did("stat", name)
	return info, err
}

func (w *watched) Resolve(name string) (string, error) {
	path, err := w.FS.Resolve(name)
	w.did("resolve", name)
	return path, err
}

// newTrap is a directory with a chain in it, vm/child.vhd over vm/in/base.vhd
// over vm/in/raw.img, and with files of the same names in etc, which nobody
// who checks that chain has to open.
func newTrap(t *testing.T) *watched {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{FS: storage.OS, dir: dir, acts: map[string]func(){}}
	for _, top := range []string{"vm", "etc"} {
		if err := os.MkdirAll(w.at(top+"/in"), 0o700); err != nil {
			t.Fatal(err)
		}
		writeRaw(t, storage.OS, w.at(top+"/in/raw.img"), testSize)
		base := childDisk(t, format.NewFooter(testSize, format.Dynamic, testNow), "raw.img", testNow)
		base.header.ParentID = format.UUID{}
		base.relocate(t, "raw.img")
		base.write(t, storage.OS, w.at(top+"/in/base.vhd"))
		r := childDisk(t, base.footer, "base.vhd", testNow)
		r.relocate(t, "in/base.vhd")
		r.write(t, storage.OS, w.at(top+"/child.vhd"))
	}
	return w
}

func (w *watched) at(name string) string { return filepath.Join(w.dir, name) }

// replace puts a link to a directory of etc's in the place of one of vm's.
func (w *watched) replace(t *testing.T, name, by string) func() {
	return func() {
		if err := os.Rename(w.at(name), w.at("away")); err != nil {
			t.Error(err)
		}
		if err := os.Symlink(w.at(by), w.at(name)); err != nil {
			t.Error(err)
		}
	}
}

func (w *watched) remove(t *testing.T, name string) func() {
	return func() {
		if err := os.Remove(w.at(name)); err != nil {
			t.Error(err)
		}
	}
}

// TestWhatIsReplacedUnderACheck: whoever owns an image's directory may replace
// any part of it at any moment, and gets nothing outside opened by it.
func TestWhatIsReplacedUnderACheck(t *testing.T) {
	cases := map[string]struct {
		when string
		act  func(*testing.T, *watched) func()
		want []want
		err  string // instead of findings
	}{
		"nothing is": {"", nil, nil, ""},
		"the image's directory, after it was opened": {"open vm/child.vhd",
			func(t *testing.T, w *watched) func() { return w.replace(t, "vm", "etc") }, nil, "another file"},
		"the image's directory, after it was resolved": {"resolve vm/child.vhd",
			func(t *testing.T, w *watched) func() { return w.replace(t, "vm", "etc") }, nil, "another file"},
		"the image's directory, after it was compared": {"stat vm/child.vhd",
			func(t *testing.T, w *watched) func() { return w.replace(t, "vm", "etc") }, []want{{Warning, "parent", "lies outside"}}, ""},
		"the parent's directory, after it was resolved": {"resolve vm/in",
			func(t *testing.T, w *watched) func() { return w.replace(t, "vm/in", "etc/in") }, []want{{Warning, "parent", "vm/in/base.vhd (a directory on the way"}}, ""},
		"the parent's directory, after it was looked at": {"stat vm/in/base.vhd",
			func(t *testing.T, w *watched) func() { return w.replace(t, "vm/in", "etc/in") }, []want{{Warning, "parent", "was not looked at"}}, ""},
		"a directory above, after the parent was looked at": {"stat vm/in/base.vhd",
			func(t *testing.T, w *watched) func() { return w.replace(t, "vm", "etc") }, []want{{Warning, "parent", "was not looked at"}}, ""},
		"the parent, by a link, after it was looked at": {"stat vm/in/base.vhd",
			func(t *testing.T, w *watched) func() {
				return w.replace(t, "vm/in/base.vhd", "etc/in/base.vhd")
			}, []want{{Damage, "parent", "vm/in/base.vhd ("}}, ""},
		"the parent, taken away after it was looked at": {"stat vm/in/base.vhd",
			func(t *testing.T, w *watched) func() { return w.remove(t, "vm/in/base.vhd") }, []want{{Damage, "parent", "not found at"}}, ""},
		"the parent's directory, after it was opened": {"open vm/in/base.vhd",
			func(t *testing.T, w *watched) func() { return w.replace(t, "vm/in", "etc/in") }, []want{{Warning, "parent", "etc/in/raw.img lies outside"}}, ""},
		"the grandparent's directory, after it was looked at": {"stat vm/in/raw.img",
			func(t *testing.T, w *watched) func() { return w.replace(t, "vm/in", "etc/in") }, []want{{Warning, "parent", "was not looked at"}}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newTrap(t)
			if c.when != "" {
				w.acts[c.when] = c.act(t, w)
			}
			outside := map[storage.FileID]string{}
			for _, name := range []string{"etc/child.vhd", "etc/in/base.vhd", "etc/in/raw.img"} {
				info, err := storage.OS.Stat(w.at(name))
				if err != nil {
					t.Fatal(err)
				}
				outside[info.ID] = name
			}
			report, err := Run(w.at("vm/child.vhd"), Options{FS: w, Parents: true, Now: testNow, IgnoreTimestamps: true})
			if len(w.acts) > 0 {
				t.Fatal("the moment never came")
			}
			switch {
			case c.err != "":
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v; want one with %q", err, c.err)
				}
			case err != nil:
				t.Error(err)
			default:
				expect(t, report.Findings, c.want...)
			}
			for _, id := range w.opened {
				if name, ok := outside[id]; ok {
					t.Errorf("it opened %s", name)
				}
			}
		})
	}
}
