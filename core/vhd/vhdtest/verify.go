package vhdtest

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"slices"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/check"
)

// verifier looks at the states of one program. What is seen of a state depends
// on its bytes alone: it is found out once for each.
type verifier struct {
	hash     maphash.Seed
	count    func(hash uint64) // is told each state
	untidy   bool              // a closed image may be as a crash would leave it
	baseline []check.Finding   // what there is to say of the image before
	image    string            // the disk in the state looked at last
	seen     map[uint64]view
	buf      []byte
}

// view is what a state shows.
type view struct {
	content []Tag
	qemu    []Tag // what qemu would see
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
		if seen, err = v.look(m, image); err != nil {
			return err
		}
		v.seen[hash] = seen
	}
	if r.tidy && !v.untidy {
		if err := v.structure(m, image, true); err != nil {
			return err
		}
	}
	if err := r.judge(seen.content); err != nil {
		return err
	}
	return r.judgeQEMU(seen.qemu)
}

// identify is the image that is the disk in a state: the newest that is there.
// The hash is of the bytes of all that may have been changed; those of the
// disk are left in buf.
func (v *verifier) identify(m *storagetest.Memory, r *rules) (image string, hash uint64, err error) {
	var h maphash.Hash
	h.SetSeed(v.hash)
	sure := false
	for i := len(r.images) - 1; i >= 0; i-- {
		name := r.images[i]
		sure = sure || name == r.must
		v.buf, err = readFile(m, name, v.buf)
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
		_, _ = h.WriteString(name)
		_, _ = h.Write(v.buf)
	}
	return image, h.Sum64(), nil
}

// readFile reads a whole file into buf, which may be moved.
func readFile(fsys storage.FS, name string, buf []byte) ([]byte, error) {
	f, err := fsys.Open(name, 0)
	if err != nil {
		return buf, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return buf, err
	}
	buf = slices.Grow(buf[:0], int(size))[:size]
	if _, err := f.ReadAt(buf, 0); err != nil && !errors.Is(err, io.EOF) {
		return buf, err
	}
	return buf, nil
}

// look opens a state's image as a user would, and judges its structure.
func (v *verifier) look(m *storagetest.Memory, image string) (view, error) {
	if err := v.structure(m, image, false); err != nil {
		return view{}, err
	}
	content, err := openAndRead(m, image, false)
	if err != nil {
		return view{}, &ruleError{1, "open: " + err.Error()}
	}
	again, err := openAndRead(m, image, true)
	if err != nil {
		return view{}, &ruleError{1, "open for reading: " + err.Error()}
	}
	if !slices.Equal(content, again) {
		return view{}, &ruleError{1, fmt.Sprintf("opened for writing it shows %v, for reading %v", content, again)}
	}
	qemu, err := qemuReads(v.buf, content)
	return view{content, qemu}, err
}

func openAndRead(fsys storage.FS, image string, readOnly bool) (content []Tag, err error) {
	img, err := vhd.Open(image, vhd.Options{FS: fsys, ReadOnly: readOnly})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	return readTags(img)
}

// structure lets check look at an image. Space without an owner is no harm,
// nor is an end footer that was lost, for the one at the start counts then;
// tidy allows neither.
func (v *verifier) structure(m *storagetest.Memory, image string, tidy bool) error {
	report, err := check.Run(image, check.Options{FS: m, Bitmaps: true, IgnoreTimestamps: true})
	if err != nil {
		return &ruleError{1, "check: " + err.Error()}
	}
	for _, f := range report.Findings {
		switch {
		case f.Severity == check.Note, v.known(f):
		case !tidy && f.Severity == check.Warning:
		case f.Severity == check.Damage:
			return &ruleError{5, "check: " + f.String()}
		default:
			return &ruleError{1, "not tidy: " + f.String()}
		}
	}
	return nil
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
