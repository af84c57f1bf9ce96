// Package size reads and prints sizes as people give them: 512, 10G, 2MiB.
// Units count in 1024s.
package size

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
)

// ErrSyntax is a text that is no size.
var ErrSyntax = errors.New("not a size (give bytes, or a number with K, M, G or T: 512, 64M, 1.5G)")

// units in ascending order; each is 1024 times the one before.
const units = "KMGT"

// Parse is the number of bytes that s says: decimal digits, perhaps with a
// fraction, then nothing or B for bytes, or K, M, G or T for 1024, 1024² … bytes,
// which may be followed by iB. Case doesn't matter. KB and its like are refused:
// half of the world takes them for 1000s. The errors wrap ErrSyntax.
func Parse(s string) (int64, error) {
	number, scale, err := split(s)
	if err != nil {
		return 0, err
	}
	if !plain(number) {
		return 0, fmt.Errorf("%q: %w", s, ErrSyntax)
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf("%q: %w", s, ErrSyntax)
	}
	r.Mul(r, new(big.Rat).SetInt64(scale))
	if !r.IsInt() {
		return 0, fmt.Errorf("%q: no whole number of bytes: %w", s, ErrSyntax)
	}
	if r.Cmp(new(big.Rat).SetInt64(math.MaxInt64)) > 0 {
		return 0, fmt.Errorf("%q: more than %d bytes: %w", s, int64(math.MaxInt64), ErrSyntax)
	}
	return r.Num().Int64(), nil
}

// split parts the number from its unit.
func split(s string) (number string, scale int64, err error) {
	end := strings.LastIndexAny(s, "0123456789.") + 1
	unit := strings.ToUpper(s[end:])
	if unit == "" || unit == "B" {
		return s[:end], 1, nil
	}
	exp := strings.IndexByte(units, unit[0])
	switch {
	case exp < 0 || unit[1:] != "" && unit[1:] != "B" && unit[1:] != "IB":
		return "", 0, fmt.Errorf("%q: %w", s, ErrSyntax)
	case unit[1:] == "B":
		return "", 0, fmt.Errorf("%q: is %s 1000s or 1024s? %s counts in 1024s: %w", s, unit, unit[:1], ErrSyntax)
	}
	return s[:end], 1 << (10 * (exp + 1)), nil
}

// plain tells whether s is digits with at most one point between them; big.Rat
// reads far more (signs, exponents as large as the machine, fractions).
func plain(s string) bool {
	whole, fraction, point := strings.Cut(s, ".")
	if whole == "" || point && fraction == "" || len(s) > 32 {
		return false
	}
	return strings.Trim(whole+fraction, "0123456789") == ""
}

// Format is n in the largest unit that gives at least 1, with at most two
// decimals: "1.5 GiB". Below 1 KiB it is "17 bytes".
func Format(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, exp := float64(n)/1024, 0
	for f >= 1024 && exp < len(units)-1 {
		f, exp = f/1024, exp+1
	}
	s := fmt.Sprintf("%.2f", f)
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	return s + " " + units[exp:exp+1] + "iB"
}
