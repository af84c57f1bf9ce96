// Package describe puts into words what an image says of itself: every field
// of its footer and header, decoded, for `vhdmount info` and for the info.json
// beside a mounted disk. The JSON is part of the command's stable interface:
// fields are added, never changed.
package describe

import (
	"path/filepath"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// Disk is an image and its chain. Sizes and offsets are in bytes throughout.
type Disk struct {
	Image       string   `json:"image"`
	VirtualSize int64    `json:"virtual_size"`
	Allocated   int64    `json:"allocated"` // of the disk's bytes, how many some layer holds, in whole blocks
	Layers      []Layer  `json:"layers"`    // the image first, then its parents
	Warnings    []string `json:"warnings"`
	Partial     bool     `json:"partial,omitempty"` // by Salvage: Allocated is unknown, and parents are left out
}

// Layer is one image of the chain.
type Layer struct {
	Image           string  `json:"image"`
	Type            string  `json:"type"` // fixed, dynamic, differencing or raw
	VirtualSize     int64   `json:"virtual_size"`
	FileSize        int64   `json:"file_size"`
	FileAllocated   int64   `json:"file_allocated"` // what the file system keeps
	Blocks          int64   `json:"blocks,omitempty"`
	AllocatedBlocks int64   `json:"allocated_blocks"`
	Batmap          bool    `json:"batmap"`
	Parent          string  `json:"parent,omitempty"`
	FooterSource    string  `json:"footer_source,omitempty"` // where the footer in use was found
	Footer          *Footer `json:"footer,omitempty"`        // none in a raw layer
	Header          *Header `json:"header,omitempty"`        // none in a fixed or raw layer
}

// Footer is the decoded footer.
type Footer struct {
	Features       uint32    `json:"features"`
	Version        string    `json:"version"`
	DataOffset     *uint64   `json:"data_offset"` // null: none
	Created        time.Time `json:"created"`
	Creator        string    `json:"creator"`
	CreatorName    string    `json:"creator_name,omitempty"` // the program's common name, where known
	CreatorVersion string    `json:"creator_version"`
	CreatorOS      string    `json:"creator_os"`
	OriginalSize   uint64    `json:"original_size"`
	CurrentSize    uint64    `json:"current_size"`
	Geometry       Geometry  `json:"geometry"`
	Type           string    `json:"type"`
	Checksum       uint32    `json:"checksum"`
	ID             string    `json:"id"`
	SavedState     bool      `json:"saved_state"`
	Hidden         bool      `json:"hidden"`
	Poisoned       bool      `json:"poisoned"` // put out of use by an interrupted resize or coalesce
}

// Geometry is the disk as cylinders, heads and sectors.
type Geometry struct {
	Cylinders uint16 `json:"cylinders"`
	Heads     uint8  `json:"heads"`
	Sectors   uint8  `json:"sectors"`
	Size      int64  `json:"size"` // the product
}

// Header is the decoded dynamic header.
type Header struct {
	DataOffset      *uint64   `json:"data_offset"` // null: none
	TableOffset     uint64    `json:"table_offset"`
	Version         string    `json:"version"`
	MaxTableEntries uint32    `json:"max_table_entries"`
	BlockSize       uint32    `json:"block_size"`
	Checksum        uint32    `json:"checksum"`
	ParentID        string    `json:"parent_id,omitempty"`
	ParentTimestamp time.Time `json:"parent_timestamp,omitzero"`
	ParentName      string    `json:"parent_name,omitempty"`
	Locators        []Locator `json:"locators,omitempty"`
}

// Locator is a parent locator that is in use.
type Locator struct {
	Slot       int    `json:"slot"`
	Code       string `json:"code"`
	DataSpace  uint32 `json:"data_space"` // as stored: sectors or bytes
	DataLength uint32 `json:"data_length"`
	DataOffset uint64 `json:"data_offset"`
	Path       string `json:"path,omitempty"`  // as POSIX would open it
	Error      string `json:"error,omitempty"` // why there is no path
}

// Image describes an open image as it is now. Relative names of files are taken to be in
// dir, and made absolute unless dir is empty.
func Image(img *vhd.Image, dir string) Disk {
	d := Disk{VirtualSize: img.Size(), Allocated: img.Allocated(), Warnings: img.Warnings()}
	for _, l := range img.Layers() {
		d.Layers = append(d.Layers, layer(l, dir))
	}
	d.Image = d.Layers[0].Image
	if d.Warnings == nil {
		d.Warnings = []string{}
	}
	return d
}

func layer(l vhd.Layer, dir string) Layer {
	out := Layer{
		Image:           absolute(dir, l.Name),
		Type:            l.Kind.String(),
		VirtualSize:     l.Size,
		FileSize:        l.FileSize,
		FileAllocated:   l.FileAllocated,
		Blocks:          l.Blocks,
		AllocatedBlocks: l.Allocated,
		Batmap:          l.Batmap,
		Parent:          absolute(dir, l.Parent),
	}
	if l.Footer != nil {
		out.Footer, out.FooterSource = footer(l.Footer), l.FooterAt.String()
	}
	if l.Header != nil {
		out.Header = header(l.Header, out.Image)
	}
	return out
}

func absolute(dir, name string) string {
	if dir == "" || name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

func footer(f *format.Footer) *Footer {
	return &Footer{
		Features:       f.Features,
		Version:        version(f.Version),
		DataOffset:     offset(f.DataOffset),
		Created:        f.Timestamp.Time(),
		Creator:        f.Creator.String(),
		CreatorName:    f.Creator.Name(),
		CreatorVersion: version(f.CreatorVersion),
		CreatorOS:      f.CreatorOS.String(),
		OriginalSize:   f.OriginalSize,
		CurrentSize:    f.CurrentSize,
		Geometry:       Geometry{f.Geometry.Cylinders, f.Geometry.Heads, f.Geometry.Sectors, f.Geometry.Bytes()},
		Type:           f.Type.String(),
		Checksum:       f.Checksum,
		ID:             f.ID.String(),
		SavedState:     f.SavedState != 0,
		Hidden:         f.Hidden != 0,
		Poisoned:       f.Poisoned,
	}
}

// header decodes h, which is that of the file called name: the locators'
// paths are in the file.
func header(h *format.Header, name string) *Header {
	out := &Header{
		DataOffset:      offset(h.DataOffset),
		TableOffset:     h.TableOffset,
		Version:         version(h.Version),
		MaxTableEntries: h.MaxTableEntries,
		BlockSize:       h.BlockSize,
		Checksum:        h.Checksum,
		ParentName:      h.ParentName,
		Locators:        locators(h, name),
	}
	if !h.ParentID.IsZero() {
		out.ParentID = h.ParentID.String()
	}
	if h.ParentTimestamp != 0 {
		out.ParentTimestamp = h.ParentTimestamp.Time()
	}
	return out
}

func locators(h *format.Header, name string) []Locator {
	var out []Locator
	for i, l := range h.Locators {
		if l.Code == format.CodeNone {
			continue
		}
		shown := Locator{Slot: i, Code: l.Code.String(), DataSpace: l.DataSpace, DataLength: l.DataLength, DataOffset: l.DataOffset}
		path, err := locatorPath(l, name)
		if err != nil {
			shown.Error = err.Error()
		}
		shown.Path = path
		out = append(out, shown)
	}
	return out
}

// locatorPath reads what a locator of the file called name says.
func locatorPath(l format.Locator, name string) (string, error) {
	if err := l.Validate(); err != nil {
		return "", err
	}
	f, err := storage.OS.Open(name, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data := make([]byte, l.DataLength) // at most 64 KiB, as Validate saw to
	if _, err := f.ReadAt(data, int64(l.DataOffset)); err != nil {
		return "", err
	}
	p, err := format.DecodeLocatorPath(l.Code, data)
	return p.Path, err
}

// offset is an offset field; nil for the one that says "none".
func offset(v uint64) *uint64 {
	if v == format.NoOffset {
		return nil
	}
	return &v
}
