package mutate

import "github.com/vhdmount/vhdmount/core/vhd/format"

// field is a field of a record T, as a number.
type field[T any] struct {
	name string
	get  func(*T) uint64
	set  func(*T, uint64)
}

// integer is the field of T that at finds.
func integer[T any, N ~uint8 | ~uint16 | ~uint32 | ~uint64](name string, at func(*T) *N) field[T] {
	return field[T]{
		name,
		func(r *T) uint64 { return uint64(*at(r)) },
		func(r *T, v uint64) { *at(r) = N(v) },
	}
}

// change gives one of fields of record another value.
func change[T any](r *records, t *tape, fields []field[T], record *T) {
	f := fields[t.pick(len(fields))]
	f.set(record, r.value(t, f.get(record)))
}

var footerFields = []field[format.Footer]{
	integer("data offset", func(f *format.Footer) *uint64 { return &f.DataOffset }),
	integer("current size", func(f *format.Footer) *uint64 { return &f.CurrentSize }),
	integer("type", func(f *format.Footer) *format.DiskType { return &f.Type }),
	integer("original size", func(f *format.Footer) *uint64 { return &f.OriginalSize }),
	integer("cylinders", func(f *format.Footer) *uint16 { return &f.Geometry.Cylinders }),
	integer("heads", func(f *format.Footer) *uint8 { return &f.Geometry.Heads }),
	integer("sectors", func(f *format.Footer) *uint8 { return &f.Geometry.Sectors }),
	integer("features", func(f *format.Footer) *uint32 { return &f.Features }),
	integer("version", func(f *format.Footer) *uint32 { return &f.Version }),
	integer("timestamp", func(f *format.Footer) *format.Time { return &f.Timestamp }),
	integer("creator version", func(f *format.Footer) *uint32 { return &f.CreatorVersion }),
	integer("saved state", func(f *format.Footer) *uint8 { return &f.SavedState }),
	integer("hidden", func(f *format.Footer) *uint8 { return &f.Hidden }),
	integer("id", func(f *format.Footer) *uint8 { return &f.ID[0] }),
	integer("reserved", func(f *format.Footer) *uint8 { return &f.Reserved[0] }),
	{
		"creator",
		func(f *format.Footer) uint64 { return 0 },
		func(f *format.Footer, v uint64) { f.Creator = creators[v%uint64(len(creators))] },
	},
	{
		"cookie",
		func(f *format.Footer) uint64 { return 0 },
		func(f *format.Footer, v uint64) { f.Poisoned = v%2 != 0 },
	},
}

// creators are those by which readers tell images apart.
var creators = []format.Creator{
	format.CreatorTap, format.CreatorVPC, format.CreatorQEMU, format.CreatorQEMUForce,
	format.CreatorWindows, format.CreatorVirtualBox, format.CreatorAzure,
}

var headerFields = []field[format.Header]{
	integer("table offset", func(h *format.Header) *uint64 { return &h.TableOffset }),
	integer("max table entries", func(h *format.Header) *uint32 { return &h.MaxTableEntries }),
	integer("block size", func(h *format.Header) *uint32 { return &h.BlockSize }),
	integer("data offset", func(h *format.Header) *uint64 { return &h.DataOffset }),
	integer("version", func(h *format.Header) *uint32 { return &h.Version }),
	integer("parent timestamp", func(h *format.Header) *format.Time { return &h.ParentTimestamp }),
	integer("reserved 1", func(h *format.Header) *uint32 { return &h.Reserved1 }),
	integer("reserved 2", func(h *format.Header) *uint8 { return &h.Reserved2[0] }),
}

var locatorFields = []field[format.Locator]{
	integer("data offset", func(l *format.Locator) *uint64 { return &l.DataOffset }),
	integer("data length", func(l *format.Locator) *uint32 { return &l.DataLength }),
	integer("data space", func(l *format.Locator) *uint32 { return &l.DataSpace }),
	integer("reserved", func(l *format.Locator) *uint32 { return &l.Reserved }),
	{
		"code",
		func(l *format.Locator) uint64 { return 0 },
		func(l *format.Locator, v uint64) { l.Code = codes[v%uint64(len(codes))] },
	},
}

// codes are those of the specification, and one that it lacks.
var codes = []format.LocatorCode{
	format.CodeW2ru, format.CodeW2ku, format.CodeMacX, format.CodeMac, format.CodeWi2r, format.CodeWi2k, format.CodeNone, 0x57327276,
}

var batmapFields = []field[format.BatmapHeader]{
	integer("offset", func(h *format.BatmapHeader) *uint64 { return &h.Offset }),
	integer("sectors", func(h *format.BatmapHeader) *uint32 { return &h.Sectors }),
	integer("version", func(h *format.BatmapHeader) *uint32 { return &h.Version }),
	integer("checksum", func(h *format.BatmapHeader) *uint32 { return &h.Checksum }),
	integer("marker", func(h *format.BatmapHeader) *uint8 { return &h.Marker }),
	integer("key hash", func(h *format.BatmapHeader) *uint8 { return &h.KeyHash.Set }),
	integer("reserved", func(h *format.BatmapHeader) *uint8 { return &h.Reserved[0] }),
}
