package size

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]int64{
		"0":                   0,
		"512":                 512,
		"512b":                512,
		"1K":                  1024,
		"1k":                  1024,
		"2M":                  2 << 20,
		"2MiB":                2 << 20,
		"2mib":                2 << 20,
		"10G":                 10 << 30,
		"10Gi" + "B":          10 << 30,
		"2040G":               2040 << 30,
		"2T":                  2 << 40,
		"1.5G":                3 << 29,
		"0.5K":                512,
		"9223372036854775807": 1<<63 - 1,
	} {
		got, err := Parse(in)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", "G", "ten", "-1", "+1", "1e3", "0x10", "1/2", "1.", ".5", "1.2.3", "1 G", "10GG", "10X", "10Gi", "10GBB",
		"0.3", "0.0001K", "9223372036854775808", "99999999T", "1_000", strings.Repeat("1", 1000),
	} {
		if got, err := Parse(in); !errors.Is(err, ErrSyntax) {
			t.Errorf("Parse(%q) = %d, %v; want ErrSyntax", in, got, err)
		}
	}
}

func TestParseNamesTheAmbiguityOfDecimalUnits(t *testing.T) {
	_, err := Parse("10GB")
	if !errors.Is(err, ErrSyntax) || !strings.Contains(err.Error(), "G counts in 1024s") {
		t.Errorf("Parse(10GB): %v", err)
	}
}

func TestFormat(t *testing.T) {
	for in, want := range map[int64]string{
		0:                    "0 bytes",
		512:                  "512 bytes",
		1024:                 "1 KiB",
		1536:                 "1.5 KiB",
		8 << 20:              "8 MiB",
		136_899_993_600:      "127.5 GiB",
		2040 << 30:           "1.99 TiB",
		1<<63 - 1:            "8388608 TiB",
		10<<30 + 10<<20*1024: "20 GiB",
	} {
		if got := Format(in); got != want {
			t.Errorf("Format(%d) = %q, want %q", in, got, want)
		}
	}
}

func TestFormatOfWholeUnitsParsesBack(t *testing.T) {
	for _, n := range []int64{1 << 10, 3 << 20, 10 << 30, 2 << 40} {
		got, err := Parse(strings.ReplaceAll(Format(n), " ", ""))
		if err != nil || got != n {
			t.Errorf("%d: %q parses as %d, %v", n, Format(n), got, err)
		}
	}
}
