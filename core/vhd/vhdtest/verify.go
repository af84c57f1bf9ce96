package vhdtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"slices"
	"sync"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/check"
)

// verifier looks at the states of one program. What is seen of a state depends
// on its bytes alone: it is found out once for each, or again where there are
// more than there is room for.
type verifier struct {
	*eyes
	hash     maphash.Seed
	count    func(hash uint64) // is told each state
	untidy   bool              // a closed image may be as a crash would leave it
	baseline []check.Finding   // what there is to say of the image before
	parent   string            // a file beside the images; empty: none
	image    string            // the disk in the state looked at last
	seen     map[uint64]view
	kept     contents
	size     int    // bytes of seen and kept, at most
	shared   *album // of other programs on the same image; nil: none
}

// contents are those that disks had, each kept once: most states differ in
// what leads to the data, not in that.
type contents map[uint64][]Tag

// keep is a copy of tags that was kept, and stays.
func (c contents) keep(tags []Tag) []Tag {
	hash := uint64(len(tags))
	for _, v := range tags {
		hash = (hash ^ uint64(v)) * 0x9e3779b97f4a7c15
		hash ^= hash >> 32
	}
	have, ok := c[hash]
	if ok && slices.Equal(have, tags) {
		return have
	}
	tags = slices.Clone(tags)
	c[hash] = tags
	return tags
}

// album is what programs on the same image have seen, for others to make use
// of, as far as there is room. It is safe for concurrent use.
type album struct {
	mu    sync.Mutex
	views map[uint64]view // guarded by mu
	size  int             // bytes of them, about; guarded by mu
}

const (
	// albumSize and seenSize bound what an album holds, and what a verifier
	// does, in bytes.
	albumSize = 256 << 20
	seenSize  = 128 << 20
	// viewSize is what a view takes in a map, in bytes, beside its tags.
	viewSize = 160
)

// view is what the album has of a state.
func (a *album) view(hash uint64) (v view, ok bool) {
	if a == nil {
		return view{}, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	v, ok = a.views[hash]
	return v, ok
}

// add adds what a program has seen.
func (a *album) add(seen map[uint64]view) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for hash, v := range seen {
		if a.size >= albumSize {
			return
		}
		a.views[hash] = v
		a.size += v.size()
	}
}

// eyes are what a state is read with, one after another. What was read last
// stays until the next.
type eyes struct {
	disk, again []byte // opened for writing, and for reading
	qemu        qemu
}

// view is what a state shows.
type view struct {
	content []Tag
	qemu    []Tag          // what qemu would see
	untidy  *check.Finding // what a closed image must not have, if there is anything
}

// size is what the view takes where it is kept, in bytes, about.
func (v view) size() int { return viewSize + 8*len(v.content) }

// remember keeps what was seen, and forgets all before it where that is too
// much.
func (v *verifier) remember(hash uint64, seen view) {
	if v.size += seen.size(); v.size > seenSize {
		clear(v.seen)
		clear(v.kept)
		v.size = seen.size()
	}
	v.seen[hash] = seen
}

// verify looks at one state under the rules. Of a closed image there must be
// nothing to say that was not there to be said before.
func (v *verifier) verify(m *storagetest.Memory, r *rules) error {
	image, hash, err := v.identify(m, r)
	v.image = image
	if err != nil {
		return err
	}
	v.count(hash)
	seen, ok := v.seen[hash]
	if !ok {
		seen, ok = v.shared.view(hash)
	}
	if !ok {
		if seen, err = v.look(m, image); err != nil {
			return err
		}
		v.remember(hash, seen)
	}
	if r.tidy && !v.untidy && seen.untidy != nil {
		return &ruleError{1, "not tidy: " + seen.untidy.String()}
	}
	if err := r.judge(seen.content); err != nil {
		return err
	}
	return r.judgeQEMU(seen.qemu)
}

// identify is the image that is the disk in a state: the newest that is there.
// The hash is of the bytes of all that may have been changed.
func (v *verifier) identify(m *storagetest.Memory, r *rules) (image string, hash uint64, err error) {
	var h maphash.Hash
	h.SetSeed(v.hash)
	add := func(name string, sum uint64) {
		_, _ = h.WriteString(name)
		_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, sum))
	}
	if v.parent != "" {
		sum, err := m.Sum(v.parent)
		if err != nil {
			return "", 0, err
		}
		add(v.parent, sum)
	}
	sure := false
	for i := len(r.images) - 1; i >= 0; i-- {
		name := r.images[i]
		sure = sure || name == r.must
		sum, err := m.Sum(name)
		if errors.Is(err, fs.ErrNotExist) {
			if !sure || name == r.must {
				return "", 0, &ruleError{1, name + " is gone"}
			}
			continue
		}
		if err != nil {
			return "", 0, err
		}
		image = name
		add(name, sum)
	}
	return image, h.Sum64(), nil
}

// look opens a state's image as a user would, and judges its structure.
func (v *verifier) look(m *storagetest.Memory, image string) (seen view, err error) {
	if seen.untidy, err = v.structure(m, image); err != nil {
		return seen, err
	}
	if v.disk, err = openAndRead(m, image, false, v.disk); err != nil {
		return seen, &ruleError{1, "open: " + err.Error()}
	}
	if seen.content, err = Decode(v.disk); err != nil {
		return seen, &ruleError{1, "open: " + err.Error()}
	}
	if v.again, err = openAndRead(m, image, true, v.again); err != nil {
		return seen, &ruleError{1, "open for reading: " + err.Error()}
	}
	if !bytes.Equal(v.disk, v.again) {
		return seen, &ruleError{1, "opened for reading it shows something else than opened for writing: " + differences(v.disk, v.again)}
	}
	if seen.qemu, err = v.qemu.reads(m, image, seen.content); err != nil {
		return seen, err
	}
	seen.content, seen.qemu = v.kept.keep(seen.content), v.kept.keep(seen.qemu)
	return seen, nil
}

// differences is the content of two disks, for a message.
func differences(a, b []byte) string {
	show := func(disk []byte) string {
		tags, err := Decode(disk)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(tags)
	}
	return show(b) + ", not " + show(a)
}

// openAndRead opens an image and reads all of its disk into buf, which may be
// moved.
func openAndRead(fsys storage.FS, image string, readOnly bool, buf []byte) (disk []byte, err error) {
	img, err := vhd.Open(image, vhd.Options{FS: fsys, ReadOnly: readOnly})
	if err != nil {
		return buf, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	return readDisk(img, buf)
}

// structure lets check look at an image. Space without an owner is no harm,
// nor is an end footer that was lost, for the one at the start counts then; a
// closed image may have neither: untidy is the first such finding.
func (v *verifier) structure(m *storagetest.Memory, image string) (untidy *check.Finding, err error) {
	report, err := check.Run(image, check.Options{FS: m, Bitmaps: true, IgnoreTimestamps: true})
	if err != nil {
		return nil, &ruleError{1, "check: " + err.Error()}
	}
	for i, f := range report.Findings {
		switch {
		case f.Severity == check.Note, v.known(f):
		case f.Severity == check.Damage:
			return nil, &ruleError{5, "check: " + f.String()}
		case untidy == nil:
			untidy = &report.Findings[i]
		}
	}
	return untidy, nil
}

// known tells whether the finding was there before.
func (v *verifier) known(f check.Finding) bool {
	return slices.ContainsFunc(v.baseline, func(b check.Finding) bool { return b.Place == f.Place && b.Severity >= f.Severity })
}

// findings is what there is to say of an image.
func findings(m *storagetest.Memory, image string) ([]check.Finding, error) {
	report, err := check.Run(image, check.Options{FS: m, Bitmaps: true, IgnoreTimestamps: true})
	if err != nil {
		return nil, err
	}
	return report.Findings, nil
}
