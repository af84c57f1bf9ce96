package vhdtest

import (
	"slices"
	"testing"
)

func TestTagsComeBack(t *testing.T) {
	tags := []Tag{0, Whole(1), Whole(1<<32 - 1), Whole(7)&^0xffffffff | 9, Tag(5)}
	got, err := Decode(Encode(tags))
	if err != nil || !slices.Equal(got, tags) {
		t.Errorf("got %v, %v, want %v", got, err, tags)
	}
	if s := tags[3].String(); s != "7|9" {
		t.Errorf("a sector of two writes is shown as %q", s)
	}
}

func TestATornHalfIsNoContent(t *testing.T) {
	for _, at := range []int{0, 3, 4, 100, 255, 256, 400, 511} {
		b := Encode(tagged(3, 5))
		b[512+at] ^= 1
		if _, err := Decode(b); err == nil {
			t.Errorf("byte %d of a sector changed: taken for a content", at)
		}
	}
}
