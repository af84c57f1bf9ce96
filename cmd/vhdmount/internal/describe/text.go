package describe

import (
	"fmt"
	"io"
	"time"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/printable"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/size"
)

// labelWidth is how far values are indented behind their labels, in columns.
const labelWidth = 20

// Text writes the disk for people: a heading for each layer, and a line for
// each field. Nothing an image holds can move the cursor of a terminal.
func (d Disk) Text(w io.Writer) error {
	p := &printer{w: w}
	for i, l := range d.Layers {
		if i > 0 {
			p.printf("\n")
		}
		p.layer(d, l, i == 0)
	}
	for _, warning := range d.Warnings {
		p.printf("warning: %s\n", printable.Text(warning))
	}
	return p.err
}

// printer writes until the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *printer) field(label, format string, args ...any) {
	p.printf("  %-*s%s\n", labelWidth, label, printable.Text(fmt.Sprintf(format, args...)))
}

func (p *printer) layer(d Disk, l Layer, leaf bool) {
	p.printf("%s\n", printable.Text(l.Image))
	p.field("type", "%s", l.Type)
	p.field("virtual size", "%s", bytes(l.VirtualSize))
	if f := l.Footer; f != nil && f.Geometry.Size != int64(f.CurrentSize) {
		p.field("  by footer", "%s", bytes(int64(f.CurrentSize)))
		p.field("  by geometry", "%s", bytes(f.Geometry.Size))
	}
	if leaf && !d.Partial {
		p.field("allocated", "%s", bytes(d.Allocated))
	}
	p.field("file size", "%s", bytes(l.FileSize))
	p.field("on disk", "%s", bytes(l.FileAllocated))
	if l.Header != nil {
		p.field("block size", "%s", bytes(int64(l.Header.BlockSize)))
		if l.Blocks > 0 {
			p.field("blocks", "%d, %d allocated", l.Blocks, l.AllocatedBlocks)
		}
		p.field("batmap", "%s", yes(l.Batmap))
	}
	if l.Parent != "" {
		p.field("parent", "%s", l.Parent)
	}
	if l.Footer != nil {
		p.footer(l.Footer, l.FooterSource)
	}
	if l.Header != nil {
		p.header(l.Header)
	}
}

func (p *printer) footer(f *Footer, source string) {
	p.field("footer", "from the %s", source)
	p.field("  id", "%s", f.ID)
	p.field("  created", "%s", f.Created.Format(time.RFC3339))
	creator := fmt.Sprintf("%q version %s", f.Creator, f.CreatorVersion)
	if f.CreatorName != "" {
		creator += " (" + f.CreatorName + ")"
	}
	p.field("  creator", "%s", creator)
	p.field("  creator OS", "%q", f.CreatorOS)
	p.field("  original size", "%s", bytes(int64(f.OriginalSize)))
	p.field("  current size", "%s", bytes(int64(f.CurrentSize)))
	p.field("  geometry", "%d cylinders, %d heads, %d sectors", f.Geometry.Cylinders, f.Geometry.Heads, f.Geometry.Sectors)
	p.field("  features", "%#x", f.Features)
	p.field("  version", "%s", f.Version)
	p.field("  data offset", "%s", orNone(f.DataOffset))
	p.field("  checksum", "%#08x", f.Checksum)
	p.field("  saved state", "%s", yes(f.SavedState))
	p.field("  hidden", "%s", yes(f.Hidden))
	if f.Poisoned {
		p.field("  poisoned", "yes: a resize or coalesce was interrupted")
	}
}

func (p *printer) header(h *Header) {
	p.field("dynamic header", "version %s", h.Version)
	p.field("  table offset", "%d", h.TableOffset)
	p.field("  table entries", "%d", h.MaxTableEntries)
	p.field("  data offset", "%s", orNone(h.DataOffset))
	p.field("  checksum", "%#08x", h.Checksum)
	if h.ParentID != "" {
		p.field("  parent id", "%s", h.ParentID)
	}
	if !h.ParentTimestamp.IsZero() {
		p.field("  parent changed", "%s", h.ParentTimestamp.Format(time.RFC3339))
	}
	if h.ParentName != "" {
		p.field("  parent name", "%s", h.ParentName)
	}
	for _, l := range h.Locators {
		says := l.Path
		if l.Error != "" {
			says = l.Error
		}
		p.field(fmt.Sprintf("  locator %d", l.Slot), "%s %s (%d bytes at %d)", l.Code, says, l.DataLength, l.DataOffset)
	}
}

func bytes(n int64) string {
	if n < 1024 {
		return size.Format(n)
	}
	return fmt.Sprintf("%s (%d bytes)", size.Format(n), n)
}

func yes(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func orNone(v *uint64) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprint(*v)
}

// version is a version field: major in the upper half, minor in the lower.
func version(v uint32) string { return fmt.Sprintf("%d.%d", v>>16, v&0xffff) }
