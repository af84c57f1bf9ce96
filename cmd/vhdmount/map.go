package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/printable"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

func mapVerb() *cli.Command {
	return &cli.Command{
		Name:      "map",
		Usage:     "print which file holds which part of the disk",
		UsageText: "vhdmount map [--json] IMAGE",
		Description: "A line for each extent: offset and length in bytes, its kind, the depth in the chain of the\n" +
			"file that holds it (0 is IMAGE), the offset in that file, and its name. A hole is in no file.",
		Flags:  append([]cli.Flag{jsonFlag()}, chainFlags()...),
		Action: runMap,
	}
}

func runMap(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	img, err := openToLook(c, args[0])
	if err != nil {
		return err
	}
	write := writeMap
	if c.Bool("json") {
		write = writeMapJSON
	}
	return errors.Join(write(c.App.Writer, joined(blockdev.Extents(img, 0, img.Size()))), img.Close())
}

// joined is extents with neighbours made one where the second goes on where
// the first ends, in the disk and in its file.
func joined(extents iter.Seq2[blockdev.Extent, error]) iter.Seq2[blockdev.Extent, error] {
	return func(yield func(blockdev.Extent, error) bool) {
		var last blockdev.Extent
		for e, err := range extents {
			if err != nil {
				if last.Length == 0 || yield(last, nil) {
					yield(blockdev.Extent{}, err)
				}
				return
			}
			if continues(last, e) {
				last.Length += e.Length
				continue
			}
			if last.Length > 0 && !yield(last, nil) {
				return
			}
			last = e
		}
		if last.Length > 0 {
			yield(last, nil)
		}
	}
}

func continues(a, b blockdev.Extent) bool {
	if a.Length == 0 || a.Kind != b.Kind || a.Depth != b.Depth || a.File != b.File {
		return false
	}
	return b.Kind == blockdev.Hole || a.FileOffset+a.Length == b.FileOffset
}

// mapBuffer is how many bytes of a map are written at once: it can have
// millions of lines, and is held in memory no further.
const mapBuffer = 64 << 10

func writeMap(w io.Writer, extents iter.Seq2[blockdev.Extent, error]) error {
	out := bufio.NewWriterSize(w, mapBuffer)
	fmt.Fprintf(out, "%15s %15s %-4s %5s %15s %s\n", "OFFSET", "LENGTH", "KIND", "DEPTH", "FILE-OFFSET", "FILE")
	file := shownName{show: func(name string) []byte { return []byte(printable.Text(name)) }}
	err := writeExtents(out, extents, func(line []byte, e blockdev.Extent) []byte {
		line = appendColumn(line, e.Offset, 15)
		line = appendColumn(append(line, ' '), e.Length, 15)
		line = append(append(line, ' '), e.Kind.String()...)
		if e.Kind != blockdev.Hole {
			line = appendColumn(append(line, ' '), int64(e.Depth), 5)
			line = appendColumn(append(line, ' '), e.FileOffset, 15)
			line = append(append(line, ' '), file.of(e.File)...)
		}
		return append(line, '\n')
	})
	return errors.Join(err, out.Flush())
}

// writeMapJSON writes an array with an extent a line. An extent has "offset",
// "length" and "kind"; one that is no hole has "depth", "file", if that has a
// name, and "file_offset".
func writeMapJSON(w io.Writer, extents iter.Seq2[blockdev.Extent, error]) error {
	out := bufio.NewWriterSize(w, mapBuffer)
	separator := "[\n\t"
	file := shownName{show: func(name string) []byte {
		b, _ := json.Marshal(name) // a string can always be
		return b
	}}
	err := writeExtents(out, extents, func(line []byte, e blockdev.Extent) []byte {
		line = append(append(line, separator...), `{"offset":`...)
		line = append(strconv.AppendInt(line, e.Offset, 10), `,"length":`...)
		line = append(strconv.AppendInt(line, e.Length, 10), `,"kind":"`...)
		line = append(append(line, e.Kind.String()...), '"')
		if e.Kind != blockdev.Hole {
			line = strconv.AppendInt(append(line, `,"depth":`...), int64(e.Depth), 10)
			if e.File != "" {
				line = append(append(line, `,"file":`...), file.of(e.File)...)
			}
			line = strconv.AppendInt(append(line, `,"file_offset":`...), e.FileOffset, 10)
		}
		separator = ",\n\t"
		return append(line, '}')
	})
	if err == nil {
		out.WriteString("\n]\n")
	}
	return errors.Join(err, out.Flush())
}

// writeExtents writes what line appends for each extent, until an extent is an
// error; one of writing is left for Flush to return.
func writeExtents(out *bufio.Writer, extents iter.Seq2[blockdev.Extent, error], line func([]byte, blockdev.Extent) []byte) error {
	for e, err := range extents {
		if err != nil {
			return err
		}
		if _, err := out.Write(line(out.AvailableBuffer(), e)); err != nil {
			return nil
		}
	}
	return nil
}

// appendColumn appends n to the right of a column so wide.
func appendColumn(line []byte, n int64, width int) []byte {
	var b [20]byte
	digits := strconv.AppendInt(b[:0], n, 10)
	for range width - len(digits) {
		line = append(line, ' ')
	}
	return append(line, digits...)
}

// shownName is a file's name as it is shown, kept for the next extent: most
// are of the same file.
type shownName struct {
	show func(name string) []byte
	name string
	text []byte // nil: no name was asked for
}

func (s *shownName) of(name string) []byte {
	if s.text == nil || s.name != name {
		s.name, s.text = name, s.show(name)
	}
	return s.text
}
