// Package format is the VHD format as pure functions between bytes and
// structs: the footer, the dynamic header with its parent locators, the BAT,
// sector bitmaps, and tapdisk's batmap. It is the only place that knows an
// offset inside one of them.
//
// It does no I/O, knows no file, and imports the standard library alone. What
// a structure says of the file (an offset, a length) is checked against what
// the format allows; that it lies inside the file is for the caller to check
// before it reads. The engine (core/vhd) and the tools built on it are the
// callers.
//
// Decoding checks the cookie and the checksum, and fixes nothing in silence:
// a tolerance is a field of the result (Footer.HiddenChecksum, Poisoned). Then
// Validate tells what makes the structure unusable, Oddities what a strict
// checker would complain of. Whatever another program put in reserved bytes
// survives decoding and encoding.
//
//	f, err := format.DecodeFooter(sector)
//	if err == nil {
//		err = f.Validate()
//	}
//	if err != nil {
//		return err // "footer: wrong checksum: stored 0x…, computed 0x…"
//	}
//	size := f.Size(format.SizeAuto)
//
// All integers on disk are big-endian, a sector is 512 bytes, offsets and
// sizes are bytes unless a name says otherwise. Values have no hidden state
// and are not safe for use while another goroutine changes them.
package format
