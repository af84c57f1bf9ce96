// Package printable makes text safe to print: names inside an image are
// anybody's, and must not move the cursor of a terminal.
package printable

import "strings"

// Text is s with U+FFFD for each control character and for what is no UTF-8.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
