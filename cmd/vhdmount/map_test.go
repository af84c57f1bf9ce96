package main

import (
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

func hole(off, n int64) blockdev.Extent {
	return blockdev.Extent{Offset: off, Length: n, Kind: blockdev.Hole, Depth: -1}
}

func data(off, n int64, file string, at int64) blockdev.Extent {
	return blockdev.Extent{Offset: off, Length: n, Kind: blockdev.Data, File: file, FileOffset: at}
}

// sequence yields extents, then err unless it is nil.
func sequence(extents []blockdev.Extent, err error) iter.Seq2[blockdev.Extent, error] {
	return func(yield func(blockdev.Extent, error) bool) {
		for _, e := range extents {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(blockdev.Extent{}, err)
		}
	}
}

func collect(seq iter.Seq2[blockdev.Extent, error]) (out []blockdev.Extent, err error) {
	for e, err := range seq {
		if err != nil {
			return out, err
		}
		out = append(out, e)
	}
	return out, nil
}

func TestJoinedExtents(t *testing.T) {
	for name, c := range map[string]struct{ in, want []blockdev.Extent }{
		"nothing":           {nil, nil},
		"one":               {[]blockdev.Extent{hole(0, 10)}, []blockdev.Extent{hole(0, 10)}},
		"holes":             {[]blockdev.Extent{hole(0, 10), hole(10, 5), hole(15, 1)}, []blockdev.Extent{hole(0, 16)}},
		"a run in a file":   {[]blockdev.Extent{data(0, 10, "a", 100), data(10, 5, "a", 110)}, []blockdev.Extent{data(0, 15, "a", 100)}},
		"a gap in the file": {[]blockdev.Extent{data(0, 10, "a", 100), data(10, 5, "a", 111)}, []blockdev.Extent{data(0, 10, "a", 100), data(10, 5, "a", 111)}},
		"another file":      {[]blockdev.Extent{data(0, 10, "a", 100), data(10, 5, "b", 110)}, []blockdev.Extent{data(0, 10, "a", 100), data(10, 5, "b", 110)}},
		"another kind":      {[]blockdev.Extent{hole(0, 10), data(10, 5, "", 10), hole(15, 1)}, []blockdev.Extent{hole(0, 10), data(10, 5, "", 10), hole(15, 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := collect(joined(sequence(c.in, nil)))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, c.want)
			}
		})
	}
}

func TestJoinedYieldsWhatCameBeforeAnError(t *testing.T) {
	broken := errors.New("broken")
	got, err := collect(joined(sequence([]blockdev.Extent{hole(0, 10), hole(10, 10)}, broken)))
	if !errors.Is(err, broken) || !slices.Equal(got, []blockdev.Extent{hole(0, 20)}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestJoinedStopsWhenItsReaderDoes(t *testing.T) {
	seen := 0
	for range joined(sequence([]blockdev.Extent{hole(0, 10), data(10, 1, "a", 0), hole(11, 9)}, nil)) {
		seen++
		break
	}
	if seen != 1 {
		t.Errorf("%d extents after a break", seen)
	}
}

func TestMapHasALineForEachExtent(t *testing.T) {
	extents := []blockdev.Extent{hole(0, 512), data(512, 1024, "di\x1bsk.vhd", 4096)}
	var text, asJSON strings.Builder
	if err := writeMap(&text, sequence(extents, nil)); err != nil {
		t.Fatal(err)
	}
	wantText := "         OFFSET          LENGTH KIND DEPTH     FILE-OFFSET FILE\n" +
		"              0             512 hole\n" +
		"            512            1024 data     0            4096 di\uFFFDsk.vhd\n"
	if text.String() != wantText {
		t.Errorf("got\n%s\nwant\n%s", &text, wantText)
	}
	if err := writeMapJSON(&asJSON, sequence(extents, nil)); err != nil {
		t.Fatal(err)
	}
	wantJSON := "[\n\t{\"offset\":0,\"length\":512,\"kind\":\"hole\"},\n" +
		"\t{\"offset\":512,\"length\":1024,\"kind\":\"data\",\"depth\":0,\"file\":\"di\\u001bsk.vhd\",\"file_offset\":4096}\n]\n"
	if asJSON.String() != wantJSON {
		t.Errorf("got\n%s\nwant\n%s", &asJSON, wantJSON)
	}
}

func TestMapReportsAnErrorOnTheWay(t *testing.T) {
	broken := errors.New("broken")
	for name, write := range map[string]func(*strings.Builder) error{
		"text": func(w *strings.Builder) error { return writeMap(w, sequence(nil, broken)) },
		"JSON": func(w *strings.Builder) error { return writeMapJSON(w, sequence(nil, broken)) },
	} {
		if err := write(new(strings.Builder)); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
