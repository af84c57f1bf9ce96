package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

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

// jsonExtent is blockdev.Extent in the command's JSON; a hole has no file.
type jsonExtent struct {
	Offset     int64  `json:"offset"`
	Length     int64  `json:"length"`
	Kind       string `json:"kind"`
	Depth      *int   `json:"depth,omitempty"`
	File       string `json:"file,omitempty"`
	FileOffset *int64 `json:"file_offset,omitempty"`
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

func writeMap(w io.Writer, extents iter.Seq2[blockdev.Extent, error]) error {
	if _, err := fmt.Fprintf(w, "%15s %15s %-4s %5s %15s %s\n", "OFFSET", "LENGTH", "KIND", "DEPTH", "FILE-OFFSET", "FILE"); err != nil {
		return err
	}
	for e, err := range extents {
		if err != nil {
			return err
		}
		if e.Kind == blockdev.Hole {
			_, err = fmt.Fprintf(w, "%15d %15d %v\n", e.Offset, e.Length, e.Kind)
		} else {
			_, err = fmt.Fprintf(w, "%15d %15d %v %5d %15d %s\n", e.Offset, e.Length, e.Kind, e.Depth, e.FileOffset, printable.Text(e.File))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeMapJSON writes an array with an extent a line; a map may be too long to
// hold in memory.
func writeMapJSON(w io.Writer, extents iter.Seq2[blockdev.Extent, error]) error {
	separator := "[\n"
	for e, err := range extents {
		if err != nil {
			return err
		}
		out := jsonExtent{Offset: e.Offset, Length: e.Length, Kind: e.Kind.String()}
		if e.Kind != blockdev.Hole {
			out.Depth, out.File, out.FileOffset = &e.Depth, e.File, &e.FileOffset
		}
		line, err := json.Marshal(out)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s\t%s", separator, line); err != nil {
			return err
		}
		separator = ",\n"
	}
	_, err := io.WriteString(w, "\n]\n")
	return err
}
