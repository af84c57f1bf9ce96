package check

import (
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// spoiled is a good image with one thing changed, and what must be found.
type spoiled struct {
	name  string
	good  func() *recipe
	spoil func(*recipe)
	want  want
}

func runSpoiled(t *testing.T, cases []spoiled) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := c.good()
			c.spoil(r)
			report := runRecipe(t, r)
			expect(t, report.Findings, c.want)
			if report.Damaged() != (c.want.severity == Damage) {
				t.Errorf("Damaged() is %v for a %v", report.Damaged(), c.want.severity)
			}
		})
	}
}

func TestFooterFields(t *testing.T) {
	runSpoiled(t, []spoiled{
		{"v_poison", dynamicDisk, func(r *recipe) { r.footer.Poisoned = true },
			want{Damage, "footer", "v_poison"}},
		{"no reserved feature", dynamicDisk, func(r *recipe) { r.footer.Features = 0 },
			want{Damage, "footer", "features 0x0 lack"}},
		{"unknown feature", dynamicDisk, func(r *recipe) { r.footer.Features |= 0x40 },
			want{Damage, "footer", "(0x40)"}},
		{"version", dynamicDisk, func(r *recipe) { r.footer.Version = 0x00020000 },
			want{Damage, "footer", "format version is 0x00020000"}},
		{"data offset of a fixed disk", fixedDisk, func(r *recipe) { r.footer.DataOffset = 512 },
			want{Damage, "footer", "data offset of a fixed disk is 0x200"}},
		{"creation time", dynamicDisk, func(r *recipe) { r.footer.Timestamp = format.TimeOf(testNow.Add(2 * time.Hour)) },
			want{Warning, "footer", "in the future"}},
		{"newer tapdisk", tapdiskDisk, func(r *recipe) { r.footer.CreatorVersion = 1<<16 | 4 },
			want{Damage, "footer", "tapdisk 1.4"}},
		{"oldest tapdisk", dynamicDisk, func(r *recipe) {
			r.footer.Creator, r.footer.CreatorVersion = format.CreatorTap, 1
			r.bitmap = func(int) format.Bitmap { return ones(128) }
		}, want{Warning, "footer", "bits in reverse"}},
		{"saved state", dynamicDisk, func(r *recipe) { r.footer.SavedState = 2 },
			want{Damage, "footer", "saved state is 2"}},
		{"hidden mark", dynamicDisk, func(r *recipe) { r.footer.Hidden = 9 },
			want{Damage, "footer", "hidden mark is 9"}},
		{"null id", dynamicDisk, func(r *recipe) { r.footer.ID = format.UUID{} },
			want{Damage, "footer", "unique id is null"}},
		{"reserved", dynamicDisk, func(r *recipe) { r.footer.Reserved[425] = 1 },
			want{Damage, "footer", "reserved bytes"}},
		{"type", dynamicDisk, func(r *recipe) { r.footer.Type = 5 },
			want{Damage, "footer", "disk type is 5"}},
		{"hidden by early XenServer", tapdiskDisk, func(r *recipe) {
			r.footer.CreatorVersion, r.batmap = 1<<16|1, nil
			for _, at := range []int64{85, 85 - 512} {
				r.patch(at, 1) // the checksum stays that of 0
			}
		}, want{Note, "footer", "as if the disk were not hidden"}},
	})
}

func TestFooterSizes(t *testing.T) {
	sized := func(size uint64) func(*recipe) {
		return func(r *recipe) { r.footer.CurrentSize, r.footer.OriginalSize = size, size }
	}
	runSpoiled(t, []spoiled{
		{"zero", dynamicDisk, sized(0), want{Damage, "footer", "current size of 0 bytes"}},
		{"over the limit", dynamicDisk, sized(2<<40 + 512), want{Damage, "footer", "over the format's limit"}},
		{"huge", fixedDisk, sized(1<<64 - 1), want{Damage, "footer", "over the format's limit"}},
		{"no whole sectors", dynamicDisk, func(r *recipe) {
			sized(testSize - 1)(r)
			r.footer.Geometry = format.GeometryFor(testSize - 1)
		}, want{Warning, "footer", "not a multiple of 512"}},
		{"resized", dynamicDisk, func(r *recipe) { r.footer.OriginalSize = 512 },
			want{Note, "footer", "original size is 512 bytes"}},
		{"largest geometry", dynamicDisk, func(r *recipe) { r.footer.Geometry = format.Geometry{Cylinders: 65535, Heads: 16, Sectors: 255} },
			want{Note, "footer", "65535/16/255"}},
		{"another geometry of less", dynamicDisk, func(r *recipe) { r.footer.Geometry = format.Geometry{Cylinders: 1000, Heads: 2, Sectors: 1} },
			want{Note, "footer", "1000/2/1"}},
		{"geometry of more", dynamicDisk, func(r *recipe) { r.footer.Geometry = format.Geometry{Cylinders: 1000, Heads: 4, Sectors: 17} },
			want{Damage, "footer", "more than the current size"}},
		{"data too short", fixedDisk, func(r *recipe) { r.length -= 512 },
			want{Damage, "file", "has 1048064 bytes of data, less than the disk's 1048576"}},
		{"data too long", fixedDisk, func(r *recipe) { r.length += 512 },
			want{Note, "file", "512 bytes between the end of the disk and the footer"}},
		{"short by three bytes", fixedDisk, func(r *recipe) { r.length += 3 },
			want{Damage, "file", "not a multiple of 512"}},
	})
}

func TestTwoFooters(t *testing.T) {
	differing := func(change func(*format.Footer)) func(*recipe) {
		return func(r *recipe) {
			front := *r.footer
			change(&front)
			r.copy = &front
		}
	}
	runSpoiled(t, []spoiled{
		{"none at the end", dynamicDisk, func(r *recipe) { r.noEnd = true },
			want{Warning, "footer", "the copy at the start is good"}},
		{"end checksum", dynamicDisk, func(r *recipe) { r.patch(-1, 7) },
			want{Warning, "footer", "wrong checksum"}},
		{"511 bytes", dynamicDisk, func(r *recipe) { r.cut = 1 },
			want{Warning, "footer", "has 511 bytes"}},
		{"511 bytes of a fixed disk", fixedDisk, func(r *recipe) { r.cut = 1 },
			want{Warning, "footer", "has 511 bytes"}},
		{"copy checksum", dynamicDisk, func(r *recipe) { r.patch(100, 7) },
			want{Damage, "footer copy", "wrong checksum"}},
		{"copy of another disk", dynamicDisk, differing(func(f *format.Footer) { f.ID[0]++ }),
			want{Damage, "footer copy", "another disk's"}},
		{"copy of another type", dynamicDisk, differing(func(f *format.Footer) { f.Type = format.Differencing }),
			want{Damage, "footer copy", "differencing"}},
		{"copy of another time", dynamicDisk, differing(func(f *format.Footer) { f.Timestamp-- }),
			want{Note, "footer copy", "Virtual PC"}},
		{"copy of another size", dynamicDisk, differing(func(f *format.Footer) { f.CurrentSize = 4096 }),
			want{Warning, "footer copy", "current size (4096, footer 1048576)"}},
		{"copy with reserved bytes", dynamicDisk, differing(func(f *format.Footer) { f.Reserved[0] = 1 }),
			want{Warning, "footer copy", "reserved bytes"}},
		{"dynamic copy in a fixed disk", fixedDisk, func(r *recipe) {
			buf := make([]byte, 512)
			format.NewFooter(4096, format.Dynamic, testNow).Encode(buf)
			r.patch(0, buf...)
		}, want{Damage, "footer copy", "another disk's"}},
		{"only a copy of a fixed disk", fixedDisk, func(r *recipe) {
			buf := make([]byte, 512)
			r.footer.Encode(buf)
			r.patch(0, buf...)
			r.noEnd = true
		}, want{Damage, "footer", "a fixed disk has none at its end"}},
		{"none but a header", dynamicDisk, func(r *recipe) {
			r.noEnd = true
			r.patch(0, make([]byte, 512)...)
		}, want{Damage, "footer", "no valid footer"}},
		{"both spoiled", dynamicDisk, func(r *recipe) {
			r.patch(100, 7)
			r.patch(-100, 7)
		}, want{Damage, "footer", "no valid footer"}},
	})
}

func TestHeaderFields(t *testing.T) {
	runSpoiled(t, []spoiled{
		{"data offset past the end", dynamicDisk, func(r *recipe) { r.footer.DataOffset = 1 << 40 },
			want{Damage, "footer", "leads to no dynamic header"}},
		{"data offset near 2^64", dynamicDisk, func(r *recipe) { r.footer.DataOffset = 1<<64 - 512 },
			want{Damage, "footer", "leads to no dynamic header"}},
		{"data offset unaligned", dynamicDisk, func(r *recipe) { r.footer.DataOffset = 513 },
			want{Damage, "footer", "leads to no dynamic header"}},
		{"data offset of another place", dynamicDisk, func(r *recipe) { r.footer.DataOffset = 4096 },
			want{Damage, "dynamic header", "wrong cookie"}},
		{"checksum", dynamicDisk, func(r *recipe) { r.patch(512+900, 1) },
			want{Damage, "dynamic header", "wrong checksum"}},
		{"version", dynamicDisk, func(r *recipe) { r.header.Version = 1 },
			want{Damage, "dynamic header", "version is 0x00000001"}},
		{"next offset", dynamicDisk, func(r *recipe) { r.header.DataOffset = 0 },
			want{Damage, "dynamic header", "data offset is 0x0"}},
		{"reserved 1", dynamicDisk, func(r *recipe) { r.header.Reserved1 = 1 },
			want{Damage, "dynamic header", "reserved bytes"}},
		{"reserved 2", dynamicDisk, func(r *recipe) { r.header.Reserved2[255] = 1 },
			want{Damage, "dynamic header", "reserved bytes"}},
		{"block size 3000", dynamicDisk, func(r *recipe) { r.header.BlockSize = 3000 },
			want{Damage, "dynamic header", "block size of 3000"}},
		{"block size 0", dynamicDisk, func(r *recipe) { r.header.BlockSize = 0 },
			want{Damage, "dynamic header", "block size of 0"}},
		{"block size 2 GiB", dynamicDisk, func(r *recipe) { r.header.BlockSize = 1 << 31 },
			want{Damage, "dynamic header", "block size of 2147483648"}},
		{"table unaligned", dynamicDisk, func(r *recipe) { r.header.TableOffset = 1537 },
			want{Damage, "dynamic header", "table offset 0x601"}},
		{"table in the footer", dynamicDisk, func(r *recipe) { r.header.TableOffset = 0 },
			want{Damage, "dynamic header", "table offset 0x0"}},
		{"table past the end", dynamicDisk, func(r *recipe) { r.header.TableOffset = 1<<64 - 512 },
			want{Damage, "BAT", "run past the end"}},
		{"entries for more than the file", dynamicDisk, func(r *recipe) { r.header.MaxTableEntries = 0xFFFFFFFF },
			want{Damage, "BAT", "4294967295 entries"}},
		{"an entry in the end footer", dynamicDisk, func(r *recipe) { r.header.MaxTableEntries = (408*512-1536)/4 + 1 },
			want{Damage, "BAT", "51841 entries at 0x600 run past the end of the data (0x33000)"}},
		{"too few entries", dynamicDisk, func(r *recipe) { r.header.MaxTableEntries = 15 },
			want{Damage, "BAT", "15 entries are too few"}},
		{"too few entries for the current size", dynamicDisk, func(r *recipe) {
			r.footer.Creator, r.footer.Geometry = format.CreatorVPC, format.Geometry{Cylinders: 10, Heads: 4, Sectors: 17}
			r.header.MaxTableEntries = 6
		}, want{Warning, "BAT", "too few for the current size"}},
		{"parent's id", dynamicDisk, func(r *recipe) { r.header.ParentID[3] = 1 },
			want{Damage, "dynamic header", "has a parent's id"}},
		{"parent's name", dynamicDisk, func(r *recipe) { r.header.ParentName = "base.vhd" },
			want{Damage, "dynamic header", `has a parent's name, "base.vhd"`}},
		{"parent's timestamp", dynamicDisk, func(r *recipe) { r.header.ParentTimestamp = 1 },
			want{Damage, "dynamic header", "has a parent's timestamp"}},
		{"parent locators", dynamicDisk, func(r *recipe) { r.header.Locators[7].Code = format.CodeW2ru },
			want{Damage, "dynamic header", "has parent locators"}},
	})
}

func TestForcedSizeWithoutGeometry(t *testing.T) {
	fs := storagetest.NewMemory()
	r := dynamicDisk()
	r.footer.Geometry = format.Geometry{}
	r.write(t, fs, "/disk.vhd")
	o := everything(fs)
	expect(t, run(t, "/disk.vhd", o).Findings)
	o.SizeFrom = format.SizeGeometry
	expect(t, run(t, "/disk.vhd", o).Findings, want{Damage, "footer", "0/0/0 is 0 bytes"})
}
