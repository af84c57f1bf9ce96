package vhdtest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// written is a crash with a file of which n sectors were written, one a call.
func written(t *testing.T, n int) *storagetest.Crash {
	t.Helper()
	m := storagetest.NewMemory()
	if err := writeFile(m, "/f", make([]byte, n*512)); err != nil {
		t.Fatal(err)
	}
	c := storagetest.NewCrashFrom(m)
	f, err := c.Open("/f", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range n {
		if _, err := f.WriteAt(Encode(tagged(1, i+1)), int64(i)*512); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func readFile(fsys storage.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	return b, err
}

func content(t *testing.T, m *storagetest.Memory) string {
	t.Helper()
	b, err := readFile(m, "/f")
	if err != nil {
		t.Fatal(err)
	}
	tags, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(tags)
}

// Going from point to point and looking at what is new alone shows every state
// that there is, each once.
func TestNewStatesOfEachPointAreAllStates(t *testing.T) {
	const sectors = 6
	c, r := written(t, sectors), rand.New(rand.NewPCG(1, 1))
	seen := map[string]int{}
	var before []storagetest.Unit
	for point := range c.Points() + 1 {
		cut := c.Cut(point)
		n := newVersions(before, cut.Units())
		if before = cut.Units(); point == 0 {
			n = nil
		}
		for choice := range choices(cut, n, 1<<20, r) {
			seen[content(t, cut.State(choice.choose))]++
		}
	}
	if len(seen) != 1<<sectors {
		t.Errorf("%d states, want %d", len(seen), 1<<sectors)
	}
	for state, times := range seen {
		if times != 1 {
			t.Errorf("%s: seen %d times", state, times)
		}
	}
}

func TestSamplesStayWithinTheLimitAndHoldTheCorners(t *testing.T) {
	c, r := written(t, 10), rand.New(rand.NewPCG(1, 1))
	cut := c.Cut(10)
	seen, n := map[string]bool{}, 0
	for choice := range choices(cut, nil, 100, r) {
		seen[content(t, cut.State(choice.choose))] = true
		n++
	}
	if n != 100 {
		t.Errorf("%d states looked at, want 100", n)
	}
	if !seen[content(t, cut.State(storagetest.All))] || !seen[content(t, cut.State(storagetest.None))] {
		t.Error("all or nothing is not among them")
	}
	for i := range 10 {
		if !seen[content(t, cut.State(butFor(i, storagetest.None, storagetest.All)))] {
			t.Errorf("sector %d by itself is not among them", i)
		}
	}
}

func TestSamplesOfAPointHaveSomethingNew(t *testing.T) {
	c, r := written(t, 12), rand.New(rand.NewPCG(1, 1))
	n := newVersions(c.Cut(11).Units(), c.Cut(12).Units())
	cut := c.Cut(12)
	for choice := range choices(cut, n, 50, r) {
		f, err := readFile(cut.State(choice.choose), "/f")
		if err != nil {
			t.Fatal(err)
		}
		if tags, err := Decode(f); err != nil || tags[11] != Whole(12) {
			t.Fatalf("%v: the last write is not in it: %v", choice, tags)
		}
	}
}
