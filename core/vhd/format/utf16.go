package format

import (
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// A surrogate code point takes three bytes in WTF-8, the first of them 0xED.
const (
	surrogateMin  = 0xD800
	surrogateMax  = 0xDFFF
	surrogateLead = 0xED
)

// decodeUTF16 reads UTF-16 up to a NUL or the end; an odd last byte is left
// out. Windows allows unpaired surrogates in names: they are kept, as WTF-8.
func decodeUTF16(b []byte, order binary.ByteOrder) string {
	var text []byte
	for len(b) >= 2 {
		r := rune(order.Uint16(b))
		if r == 0 {
			break
		}
		b = b[2:]
		if utf16.IsSurrogate(r) && len(b) >= 2 {
			if pair := utf16.DecodeRune(r, rune(order.Uint16(b))); pair != utf8.RuneError {
				r, b = pair, b[2:]
			}
		}
		text = appendWTF8(text, r)
	}
	return string(text)
}

func appendWTF8(b []byte, r rune) []byte {
	if utf16.IsSurrogate(r) {
		return append(b, surrogateLead, byte(0x80|r>>6&0x3f), byte(0x80|r&0x3f))
	}
	return utf8.AppendRune(b, r)
}

// encodeUTF16 is the mirror of decodeUTF16, without a terminator. Bytes of s
// that are neither UTF-8 nor a surrogate become U+FFFD, and lossless is false.
func encodeUTF16(s string, order binary.AppendByteOrder) (text []byte, lossless bool) {
	lossless = true
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			if sur, ok := leadingSurrogate(s); ok {
				text = order.AppendUint16(text, sur)
				s = s[3:]
				continue
			}
			lossless = false
		}
		s = s[n:]
		if hi, lo := utf16.EncodeRune(r); hi != utf8.RuneError {
			text = order.AppendUint16(text, uint16(hi))
			r = lo
		}
		text = order.AppendUint16(text, uint16(r))
	}
	return text, lossless
}

// leadingSurrogate is the surrogate that s begins with in WTF-8.
func leadingSurrogate(s string) (uint16, bool) {
	if len(s) < 3 || s[0] != surrogateLead || s[1]&0xC0 != 0x80 || s[2]&0xC0 != 0x80 {
		return 0, false
	}
	r := uint16(s[0]&0x0f)<<12 | uint16(s[1]&0x3f)<<6 | uint16(s[2]&0x3f)
	return r, surrogateMin <= r && r <= surrogateMax
}
