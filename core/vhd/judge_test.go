package vhd_test

import (
	"bytes"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/check"
)

// The files of a case, beside those that no image may lead to.
const (
	childName  = "/vm/child.vhd"
	parentName = "/vm/parent.vhd"
)

// judge takes a hostile image, over a parent unless that is nil, through
// opening, reading, writing, flushing, and opening again. Whatever the bytes:
//
//   - nothing panics, and opening takes neither long nor more memory than goes
//     with the size of the files;
//   - nothing but the image is written to, and not past its end; nothing outside
//     its folder is opened;
//   - opening and reading change nothing;
//   - what is shown is what a reader that goes by the records alone finds;
//   - what opens for writing has no damage that writing would spread, shows
//     what was written, with all the rest, once it was flushed, and has no
//     damage more than it had.
func judge(t *testing.T, child, parent []byte) {
	t.Helper()
	c := &trial{t: t, fsys: storagetest.NewMemory(), size: len(child) + len(parent)}
	c.guard = &recorder{FS: c.fsys, before: c.permitted}
	writeFile(t, c.fsys, childName, child)
	if parent != nil {
		writeFile(t, c.fsys, parentName, parent)
	}
	for _, name := range []string{"/outside.vhd", "/etc/shadow", "/vm/raw.img", "/vm/sub/x"} {
		writeFile(t, c.fsys, name, noise(familySize))
	}
	for _, readOnly := range []bool{true, false} {
		img := c.open(readOnly)
		if img == nil {
			continue
		}
		c.reads(img)
		must(t, img.Close())
		if !bytes.Equal(contentOf(t, c.fsys, childName), child) {
			t.Fatal("reading changed the file")
		}
		if !readOnly {
			h := fnv.New64a()
			h.Write(child)
			c.writes(rand.New(rand.NewPCG(h.Sum64(), 0)))
		}
	}
	if parent != nil && !bytes.Equal(contentOf(t, c.fsys, parentName), parent) {
		t.Error("the parent was written to")
	}
}

// trial is a hostile image on its way through judge.
type trial struct {
	t     *testing.T
	fsys  *storagetest.Memory
	guard *recorder // over fsys
	size  int       // bytes of all the images

	opening, readOnly bool
}

// permitted is asked ahead of each call of the engine's.
func (c *trial) permitted(one call) error {
	bad := func(why string) { c.t.Errorf("%s of %s, %d bytes at %d: %s", one.op, one.name, one.n, one.off, why) }
	size := func() int64 { return sizeOf(c.t, c.fsys, one.name) }
	switch one.op {
	case "stat", "sync", "close", "begin sync":
	case "open":
		if !strings.HasPrefix(one.name, "/vm/") {
			bad("it is outside the image's folder")
		}
		if storage.Flag(one.n)&storage.ReadWrite != 0 && (one.name != childName || c.readOnly) {
			bad("for writing")
		}
	case "read", "nowait":
		if one.off < 0 || one.n < 0 || one.n > 1<<20 { // past the end there is nothing
			bad("it is no place")
		}
	case "write", "truncate", "punch", "allocate":
		if one.name != childName || c.readOnly || c.opening {
			bad("it is not to be written to")
		}
		// A footer may be added to a file that lacks some of it.
		if end := size() + 2*512; one.off < 0 || one.op == "write" && (one.n > end || one.off > end-one.n) {
			bad("it passes the end")
		}
	default:
		bad("there is no need")
	}
	return nil
}

// open opens the image, and judges a refusal; nil if it is refused.
func (c *trial) open(readOnly bool) *vhd.Image {
	c.t.Helper()
	c.opening, c.readOnly = true, readOnly
	began, before := time.Now(), heapAllocated()
	img, err := vhd.Open(childName, vhd.Options{FS: c.guard, ReadOnly: readOnly})
	if took := heapAllocated() - before; took > 2<<20+16*uint64(c.size) {
		c.t.Errorf("%d bytes of memory to open files of %d", took, c.size)
	}
	if took := time.Since(began); took > time.Second {
		c.t.Errorf("opening took %v", took)
	}
	c.opening = false
	if err == nil {
		return img
	}
	if text := err.Error(); !strings.Contains(text, "/vm/") || strings.ContainsAny(text, "\n\x1b") {
		c.t.Errorf("error %q", text)
	}
	if damage := c.damage(); readOnly && errors.Is(err, vhd.ErrCorrupt) && len(damage) == 0 {
		c.t.Errorf("refused, but a check finds nothing: %v", err)
	}
	return nil
}

// heapAllocated is what was ever allocated on the heap, in bytes.
func heapAllocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// damage is what is wrong with the image and its parents, by place, by a check
// that shares no code with the engine.
func (c *trial) damage() map[string]string {
	c.t.Helper()
	report, err := check.Run(childName, check.Options{FS: c.fsys, Parents: true, Bitmaps: true})
	if err != nil {
		return map[string]string{"file": err.Error()}
	}
	found := map[string]string{}
	for _, f := range report.Findings {
		if f.Severity == check.Damage {
			found[f.Image+": "+f.Place] = f.Message
		}
	}
	return found
}

// reads reads what is looked at, and sees that it is what the records say.
func (c *trial) reads(img *vhd.Image) []*window {
	c.t.Helper()
	list := windowsOf(img)
	for _, w := range list {
		w.learn(c.t, img)
		for at, known := range w.known {
			off := w.off + int64(at)*512
			if want, ok := c.byRecords(img.Layers(), off); known && (!ok || !bytes.Equal(w.sector(at), want)) {
				c.t.Fatalf("at %d it shows %.16x…, the records say %.16x… (%v)", off, w.sector(at), want, ok)
			}
		}
		for range img.Extents(w.off, int64(len(w.want))) {
		}
	}
	if a := img.Allocated(); a < 0 || a > img.Size() {
		c.t.Errorf("%d bytes allocated of %d", a, img.Size())
	}
	return list
}

// writes changes the image, and sees that the changes, and nothing else, are
// there after a flush and after a close.
func (c *trial) writes(random *rand.Rand) {
	c.t.Helper()
	before := c.damage()
	img := c.open(false)
	for place, message := range before {
		own, ok := strings.CutPrefix(place, childName+": ")
		ok = ok && (own == "BAT" || strings.HasPrefix(own, "block ") || strings.Contains(message, "overlap"))
		void := strings.Contains(own+message, "batmap") && !img.Layers()[0].Batmap || // what is ignored is no structure
			strings.Contains(message, "full by the batmap, but its bitmap") // as tapdisk leaves it: the batmap is what counts
		if ok && !void {
			c.t.Errorf("opened for writing, but %s: %s", place, message)
		}
	}
	list := c.reads(img)
	for range 12 {
		list[random.IntN(len(list))].change(img, random)
	}
	must(c.t, img.Flush())
	c.shows(img, list)
	beside, err := vhd.Open(childName, vhd.Options{FS: c.fsys, ReadOnly: true, NoLock: true})
	must(c.t, err)
	c.shows(beside, list)
	must(c.t, beside.Close())
	list[0].change(img, random)
	must(c.t, img.Close())
	img = c.open(false)
	if img == nil {
		c.t.Fatal("after writing it doesn't open again")
	}
	c.shows(img, list)
	must(c.t, img.Close())
	for place, message := range c.damage() {
		if before[place] == "" {
			c.t.Errorf("damaged by writing: %s: %s", place, message)
		}
	}
}

// shows sees that an image shows what is known of it.
func (c *trial) shows(img *vhd.Image, list []*window) {
	c.t.Helper()
	for _, w := range list {
		got := &window{off: w.off, want: make([]byte, len(w.want)), known: slices.Clone(w.known)}
		got.learn(c.t, img)
		for i, known := range w.known {
			if known && (!got.known[i] || !bytes.Equal(got.sector(i), w.sector(i))) {
				c.t.Fatalf("at %d there is %.16x… (%v), not %.16x…", w.off+int64(i)*512, got.sector(i), got.known[i], w.sector(i))
			}
		}
	}
}
