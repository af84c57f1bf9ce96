package vhdtest

import (
	"errors"
	"hash/maphash"
	"slices"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// onKind is a verifier for what a kind makes, and what that is.
func onKind(t *testing.T, name string) (*verifier, *storagetest.Memory, *rules) {
	t.Helper()
	kinds, m := Kinds(), storagetest.NewMemory()
	k := kinds[slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })]
	if err := k.Make(m); err != nil {
		t.Fatal(err)
	}
	content, err := shows(m, true)
	if err != nil {
		t.Fatal(err)
	}
	v := &verifier{eyes: &eyes{}, hash: maphash.MakeSeed(), seen: map[uint64]view{}, kept: contents{}, count: func(uint64) {}}
	return v, m, newHistory(Name, content, content).at(0)
}

// spoil changes a byte of a file.
func spoil(t *testing.T, m *storagetest.Memory, name string, off int64) {
	t.Helper()
	f, err := m.Open(name, storage.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, rerr := f.ReadAt(b[:], off)
	b[0] ^= 1
	_, werr := f.WriteAt(b[:], off)
	if err := errors.Join(rerr, werr, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// What another program has seen is not looked at again, and judged all the
// same.
func TestAStateIsLookedAtOnceForAllPrograms(t *testing.T) {
	first, m, r := onKind(t, onFixed)
	if err := first.verify(m, r); err != nil || len(first.seen) != 1 {
		t.Fatalf("%d states seen, %v", len(first.seen), err)
	}
	shared := &album{views: map[uint64]view{}}
	shared.add(first.seen)
	next := &verifier{eyes: &eyes{}, hash: first.hash, seen: map[uint64]view{}, kept: contents{}, count: func(uint64) {}, shared: shared}
	if err := next.verify(m, r); err != nil || len(next.seen) != 0 {
		t.Errorf("%d states seen again, %v", len(next.seen), err)
	}
	other := newHistory(Name, tagged(sectors, 7), tagged(sectors, 7)).at(0)
	if err := next.verify(m, other); err == nil {
		t.Error("what another program has seen is not held against the rules of this one")
	}
	spoil(t, m, Name, 300)
	if err := next.verify(m, r); err == nil {
		t.Error("a byte has changed, and what was seen before is taken for it")
	}
}

func TestAStateOverAnotherParentIsAnotherState(t *testing.T) {
	v, m, r := onKind(t, onChildOfRaw)
	v.parent = base
	if err := v.verify(m, r); err != nil {
		t.Fatal(err)
	}
	spoil(t, m, base, 0)
	if err := v.verify(m, r); err == nil {
		t.Error("the parent has changed, and what was seen before is taken for it")
	}
}

func TestAnAlbumIsBounded(t *testing.T) {
	a, seen := &album{views: map[uint64]view{}}, map[uint64]view{}
	large := view{content: make([]Tag, albumSize/8/4)}
	for hash := range uint64(10) {
		seen[hash] = large
	}
	a.add(seen)
	if len(a.views) != 4 {
		t.Errorf("%d views of a quarter of an album each", len(a.views))
	}
}

func TestAVerifierForgetsWhatIsTooMuch(t *testing.T) {
	v, m, r := onKind(t, onFixed)
	for hash := range uint64(9) {
		v.remember(hash, view{content: make([]Tag, seenSize/8/4)})
	}
	if len(v.seen) > 3 {
		t.Errorf("%d views of a quarter of the room each", len(v.seen))
	}
	if err := v.verify(m, r); err != nil {
		t.Error(err)
	}
}

// idle is a disk that says that it has read, and has not.
type idle struct{}

func (idle) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (idle) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (idle) Size() int64                            { return 1024 }
func (idle) Flush() error                           { return nil }
func (idle) Close() error                           { return nil }

func TestWhatWasReadBeforeIsNotTakenForRead(t *testing.T) {
	disk, err := readDisk(idle{}, Encode(tagged(4, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if tags, err := Decode(disk); err != nil || !slices.Equal(tags, []Tag{0, 0}) {
		t.Errorf("%v, %v", tags, err)
	}
}
