package mutate

import "github.com/vhdmount/vhdmount/core/vhd/format"

// editFooter changes a field of both footers, or of one.
func (r *records) editFooter(t *tape) {
	var chosen []*format.Footer
	which := t.pick(3)
	if r.front != nil && which != 1 {
		chosen = append(chosen, r.front)
	}
	if r.end != nil && which != 2 {
		chosen = append(chosen, r.end)
	}
	if len(chosen) == 0 {
		return
	}
	f := footerFields[t.pick(len(footerFields))]
	v := r.value(t, f.get(chosen[0]))
	for _, footer := range chosen {
		f.set(footer, v)
	}
}

func (r *records) editHeader(t *tape) {
	if r.header != nil {
		change(r, t, headerFields, r.header)
	}
}

func (r *records) editLocator(t *tape) {
	if r.header != nil {
		change(r, t, locatorFields, &r.header.Locators[t.pick(len(r.header.Locators))])
	}
}

// names are where a hostile image says that its parent is.
var names = []string{
	"parent.vhd", "child.vhd", "../outside.vhd", "/outside.vhd", "../../etc/shadow", "/etc/shadow", "sub/../parent.vhd", "./child.vhd",
	"", ".", "..", "/", "/dev/zero", "/proc/self/fd/0", "raw.img", "parent.vhd/child.vhd", "nowhere.vhd",
}

// editName changes the header's name of the parent, or what a locator has for
// one.
func (r *records) editName(t *tape) {
	if r.header == nil {
		return
	}
	name := names[t.pick(len(names))]
	i := t.pick(len(r.header.Locators) + 1)
	if i == len(r.header.Locators) {
		r.header.ParentName = name
		return
	}
	l := &r.header.Locators[i]
	l.Code = codes[t.pick(3)]
	data, err := format.EncodeLocatorPath(l.Code, name)
	if err != nil {
		data = []byte(name)
	}
	if l.DataOffset == 0 {
		l.DataOffset, l.DataSpace = r.landmarks[t.pick(len(r.landmarks))], sector
	}
	l.DataLength = uint32(len(data))
	if r.has(l.DataOffset, len(data)) {
		copy(r.data[l.DataOffset:], data)
	}
}

// editParentID makes the parent a raw file, the image itself, or another.
func (r *records) editParentID(t *tape) {
	if r.header == nil {
		return
	}
	switch t.pick(3) {
	case 0:
		r.header.ParentID = format.UUID{}
	case 1:
		if r.end != nil {
			r.header.ParentID = r.end.ID
		}
	default:
		r.header.ParentID[0] = t.byte()
	}
}

// editBAT changes an entry: to any value, or to that of another one, which
// makes a duplicate, or near it, which makes an overlap.
func (r *records) editBAT(t *tape) {
	if len(r.bat) == 0 {
		return
	}
	i := t.pick(len(r.bat))
	switch t.pick(3) {
	case 0:
		r.bat[i] = uint32(r.value(t, uint64(r.bat[i])))
	case 1:
		r.bat[i] = r.bat[t.pick(len(r.bat))] + uint32(nearby[t.pick(len(nearby))])
	default:
		r.bat[i] = uint32(r.landmarks[t.pick(len(r.landmarks))]/sector) + uint32(nearby[t.pick(len(nearby))])
	}
}

// fillBAT gives a run of entries ascending values.
func (r *records) fillBAT(t *tape) {
	if len(r.bat) == 0 {
		return
	}
	from := t.pick(len(r.bat))
	n := 1 + t.pick(len(r.bat)-from)
	v, step := uint32(r.value(t, uint64(r.bat[from]))), uint32(t.byte())
	for i := range n {
		r.bat[from+i] = v + uint32(i)*step
	}
}

// editBitmap sets or clears a run of bits of a block's bitmap.
func (r *records) editBitmap(t *tape) {
	if len(r.bat) == 0 || r.header.BlockSize == 0 {
		return
	}
	at := uint64(r.bat[t.pick(len(r.bat))]) * sector
	size := int(max(1, (uint64(r.header.BlockSize)/sector+7)/8))
	if r.has(at, size) {
		flip(format.Bitmap(r.data[at:][:size]), t)
	}
}

// editBatmap changes a field of the batmap's header.
func (r *records) editBatmap(t *tape) {
	if r.batmap != nil {
		change(r, t, batmapFields, r.batmap)
	}
}

// editBatmapBits sets or clears a run of bits of the batmap, and mends its
// checksum.
func (r *records) editBatmapBits(t *tape) {
	h := r.batmap
	if h == nil || h.Sectors == 0 || !r.has(h.Offset, int(h.Sectors)*sector) {
		return
	}
	bits := r.data[h.Offset:][:int(h.Sectors)*sector]
	flip(format.Bitmap(bits[:min(len(bits), (len(r.bat)+7)/8)]), t)
	h.Checksum = format.BatmapChecksum(bits, h.Version)
}

// flip sets or clears a run of bits.
func flip(bits format.Bitmap, t *tape) {
	if len(bits) == 0 {
		return
	}
	from := t.pick(8 * len(bits))
	n := 1 + t.pick(8*len(bits)-from)
	if t.byte()%2 == 0 {
		bits.Set(from, n)
	} else {
		bits.Clear(from, n)
	}
}
