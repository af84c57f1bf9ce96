package format

import (
	"strconv"
	"strings"
)

const upperHex = "0123456789ABCDEF"

// escape writes what isn't printable ASCII, and "%", "#" and "?", as %XX. The
// space stays: tapdisk compares names without unescaping them.
func escape(s string) string {
	var out strings.Builder
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c > '~' || c == '%' || c == '#' || c == '?' {
			out.Write([]byte{'%', upperHex[c>>4], upperHex[c&0xf]})
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

// unescape reads %XX; a percent sign that begins no escape stands for itself,
// as in what tapdisk writes.
func unescape(s string) string {
	var out strings.Builder
	for len(s) > 0 {
		if s[0] == '%' && len(s) >= 3 {
			if c, err := strconv.ParseUint(s[1:3], 16, 8); err == nil {
				out.WriteByte(byte(c))
				s = s[3:]
				continue
			}
		}
		out.WriteByte(s[0])
		s = s[1:]
	}
	return out.String()
}
