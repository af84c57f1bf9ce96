package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/printable"
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

// mapLine and mapObject are what a line of a map is, in the library's words.
func mapLine(e blockdev.Extent) string {
	if e.Kind == blockdev.Hole {
		return fmt.Sprintf("%15d %15d %v\n", e.Offset, e.Length, e.Kind)
	}
	return fmt.Sprintf("%15d %15d %v %5d %15d %s\n", e.Offset, e.Length, e.Kind, e.Depth, e.FileOffset, printable.Text(e.File))
}

func mapObject(t *testing.T, e blockdev.Extent) string {
	t.Helper()
	out := struct {
		Offset     int64  `json:"offset"`
		Length     int64  `json:"length"`
		Kind       string `json:"kind"`
		Depth      *int   `json:"depth,omitempty"`
		File       string `json:"file,omitempty"`
		FileOffset *int64 `json:"file_offset,omitempty"`
	}{Offset: e.Offset, Length: e.Length, Kind: e.Kind.String()}
	if e.Kind != blockdev.Hole {
		out.Depth, out.File, out.FileOffset = &e.Depth, e.File, &e.FileOffset
	}
	line, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

// TestMapIsWrittenAsTheLibraryWould: the lines are put together by hand.
func TestMapIsWrittenAsTheLibraryWould(t *testing.T) {
	extents := []blockdev.Extent{
		hole(0, 1), data(1, 99999999999999, "a", 7), data(1<<62, 1<<62, "a", 1<<62), hole(123456789012345, 1234567890123456),
		{Offset: 5, Length: 6, Kind: blockdev.Zero, Depth: 255, File: "a", FileOffset: 8},
		{Offset: 5, Length: 6, Kind: blockdev.Data, Depth: 1234567, File: "b", FileOffset: 8},
		data(7, 8, "", 9), data(7, 8, "c <&>\u2028\xff\"\\\x07 é.vhd", 9), data(7, 8, "", 10), data(7, 8, "b", 9),
	}
	wantText := "         OFFSET          LENGTH KIND DEPTH     FILE-OFFSET FILE\n"
	var objects []string
	for _, e := range extents {
		wantText += mapLine(e)
		objects = append(objects, "\t"+mapObject(t, e))
	}
	wantJSON := "[\n" + strings.Join(objects, ",\n") + "\n]\n"
	var text, asJSON strings.Builder
	if err := errors.Join(writeMap(&text, sequence(extents, nil)), writeMapJSON(&asJSON, sequence(extents, nil))); err != nil {
		t.Fatal(err)
	}
	if text.String() != wantText {
		t.Errorf("got\n%s\nwant\n%s", &text, wantText)
	}
	if asJSON.String() != wantJSON {
		t.Errorf("got\n%s\nwant\n%s", &asJSON, wantJSON)
	}
}

// countingWriter counts what is written to it, and fails once it has had most
// calls, if that is not 0.
type countingWriter struct{ calls, bytes, most int }

var errPipe = errors.New("broken pipe")

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.calls++; w.calls == w.most {
		return 0, errPipe
	}
	w.bytes += len(p)
	return len(p), nil
}

// TestALongMapTakesLittle: few calls of the system, and no memory that grows
// with it.
func TestALongMapTakesLittle(t *testing.T) {
	const extents = 100000
	long := func(yield func(blockdev.Extent, error) bool) {
		for i := range int64(extents) {
			if !yield(data(i*512, 512, "disk.vhd", i*1024), nil) {
				return
			}
		}
	}
	for name, write := range map[string]func(io.Writer, iter.Seq2[blockdev.Extent, error]) error{"text": writeMap, "JSON": writeMapJSON} {
		t.Run(name, func(t *testing.T) {
			var out countingWriter
			allocations := testing.AllocsPerRun(1, func() {
				out = countingWriter{}
				if err := write(&out, joined(long)); err != nil {
					t.Fatal(err)
				}
			})
			if out.bytes < extents*50 {
				t.Errorf("%d bytes of output", out.bytes)
			}
			if most := out.bytes/mapBuffer + 1; out.calls > most {
				t.Errorf("%d writes, want %d at most", out.calls, most)
			}
			if allocations > extents/100 { // a line that passes the end of the buffer
				t.Errorf("%v allocations for %d extents", allocations, extents)
			}
		})
	}
}

// TestAMapThatNobodyReadsEnds at the first write that fails.
func TestAMapThatNobodyReadsEnds(t *testing.T) {
	for name, write := range map[string]func(io.Writer, iter.Seq2[blockdev.Extent, error]) error{"text": writeMap, "JSON": writeMapJSON} {
		seen := int64(0)
		endless := func(yield func(blockdev.Extent, error) bool) {
			for yield(data(seen*512, 512, "disk.vhd", seen*1024), nil) && seen < 1<<20 {
				seen++
			}
		}
		err := write(&countingWriter{most: 2}, endless)
		if !errors.Is(err, errPipe) || strings.Count(err.Error(), "pipe") != 1 {
			t.Errorf("%s: error %v", name, err)
		}
		if seen > 10000 {
			t.Errorf("%s: %d extents were asked for", name, seen)
		}
	}
}

// TestMapShowsWhatCameBeforeAnError: it is not lost in a buffer.
func TestMapShowsWhatCameBeforeAnError(t *testing.T) {
	broken := errors.New("broken")
	for name, write := range map[string]func(io.Writer, iter.Seq2[blockdev.Extent, error]) error{"text": writeMap, "JSON": writeMapJSON} {
		var out strings.Builder
		if err := write(&out, sequence([]blockdev.Extent{hole(0, 12345)}, broken)); !errors.Is(err, broken) || !strings.Contains(out.String(), "12345") {
			t.Errorf("%s: error %v after %q", name, err, &out)
		}
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
