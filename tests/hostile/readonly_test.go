package hostile

import (
	"bytes"
	"os"
	"testing"

	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/tests/harness"
)

// TestReadOnlyShowsWhatIsLeft of an image that is refused for writing: block 9
// is bad, and block 0 is as it was.
func TestReadOnlyShowsWhatIsLeft(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	data := image(t, b)
	b.Mkdir("mnt")
	sectors := uint32(len(data) / 512)
	entry := func(value uint32) func(d []byte) { return func(d []byte) { put(d, batAt+9*4, value) } }
	locate := func(offset, space uint64) func(d []byte) {
		return func(d []byte) {
			h, err := format.DecodeHeader(d[headerAt:][:1024])
			check(t, err)
			h.Locators[0] = format.Locator{Code: format.CodeW2ru, DataSpace: uint32(space), DataLength: 10, DataOffset: offset}
			h.Encode(d[headerAt:])
		}
	}
	for name, c := range map[string]struct {
		spoil func(d []byte)
		gone  bool // block 9 can't be read
		words []string
	}{
		"past the end":             {entry(sectors + 8), true, []string{"block 9", "past the end"}},
		"into the end footer":      {entry(sectors - 4097), true, []string{"block 9", "past the end"}},
		"into the footer's copy":   {entry(0), false, []string{"block 9"}},
		"into the header":          {entry(2), false, []string{"block 9"}},
		"into the BAT":             {entry(3), false, []string{"block 9"}},
		"in the place of another":  {func(d []byte) { copy(d[batAt+9*4:][:4], d[batAt:][:4]) }, false, []string{"block 9", "overlaps block 0"}},
		"over another":             {func(d []byte) { d[batAt+9*4+3] = d[batAt+3] + 8; copy(d[batAt+9*4:][:3], d[batAt:][:3]) }, false, []string{"block 9", "overlaps block 0"}},
		"a locator past the end":   {locate(1<<40, 512), false, []string{"locator 0", "pass the end"}},
		"a locator over a block":   {locate(64<<10, 512), false, []string{"block", "locator 0"}},
		"a locator of 4 GiB":       {locate(4096, 0xFFFFFE00), false, []string{"locator 0", "end"}},
		"a locator over the BAT":   {locate(1536, 512), false, []string{"locator 0", "BAT"}},
		"a locator over the start": {locate(0, 512), false, []string{"locator 0", "footer's copy"}},
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := bytes.Clone(data)
			c.spoil(spoilt)
			b.Write("bad.vhd", spoilt)
			refuses(t, b, []string{"mount", "bad.vhd", "mnt"}, append(c.words, "bad.vhd")...)
			m := b.Mount("bad.vhd", "--read-only")
			f := m.Open(os.O_RDONLY)
			got := make([]byte, 8192)
			_, err := f.ReadAt(got, 0)
			check(t, err)
			if !bytes.Equal(got, harness.Random(0, 8192)) {
				t.Error("block 0 reads as something else")
			}
			if _, err := f.ReadAt(got, 18<<20); (err != nil) != c.gone {
				t.Errorf("block 9: %v", err)
			}
			check(t, f.Close())
			m.Unmount()
			if !bytes.Equal(b.Read("bad.vhd"), spoilt) {
				t.Error("the image changed")
			}
		})
	}
}
