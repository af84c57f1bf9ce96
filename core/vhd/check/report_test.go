package check

import (
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func TestFindingIsOneLine(t *testing.T) {
	r := dynamicDisk()
	r.bat[9], r.length = 9999, 408*512
	got := runRecipe(t, r).Findings[0].String()
	const wanted = "/disk.vhd: damage: block 9: BAT entry points past the end of the file (sector 9999 of 408) — restore the block from a backup"
	if got != wanted {
		t.Errorf("%q\nwant %q", got, wanted)
	}
}

// TestLettersOfAnImageStayOnOneLine: names come out of the image as they are.
func TestLettersOfAnImageStayOnOneLine(t *testing.T) {
	got := child(t, func(r *recipe, _ *storagetest.Memory, _ *Options) { r.rename(t, "a\nb\x1b[2J\"") })
	const wanted = `/vm/other.vhd: damage: parent: not found at /vm/a\nb\x1b[2J", /vm/a%0Ab%1B[2J" — put it there, or name it`
	if len(got) != 1 || got[0].String() != wanted {
		t.Errorf("%q\nwant %q", got, wanted)
	}
}

func TestFindingsAreCapped(t *testing.T) {
	const entries = 5000
	r := dynamicDisk()
	r.header.MaxTableEntries = entries
	r.footer = format.NewFooter(entries*testBlock, format.Dynamic, testNow)
	r.bat = make([]uint32, entries)
	for i := range r.bat {
		r.bat[i] = 0x7FFFFFFF
	}
	r.length = 1 << 20
	report := runRecipe(t, r)
	if len(report.Findings) != MaxFindings+1 {
		t.Fatalf("%d findings, want %d and one", len(report.Findings), MaxFindings)
	}
	// All blocks, and the space that none of them has.
	expect(t, report.Findings[MaxFindings:], want{Damage, "report", "4001 more findings"})
	if report.Allocated != entries {
		t.Errorf("%d allocated, want %d", report.Allocated, entries)
	}
}

func TestDamageBeyondTheCapCounts(t *testing.T) {
	var f findings
	for range MaxFindings {
		f.add(Finding{Severity: Note})
	}
	report := Report{Findings: f.close("x")}
	if report.Damaged() || report.Worst() != Note || len(report.Findings) != MaxFindings {
		t.Errorf("%d notes: worst is %v", len(report.Findings), report.Worst())
	}
	f.add(Finding{Severity: Warning})
	f.add(Finding{Severity: Damage})
	f.add(Finding{Severity: Note})
	report = Report{Findings: f.close("x")}
	if !report.Damaged() || report.Worst() != Damage {
		t.Errorf("with damage not listed: worst is %v", report.Worst())
	}
}

func TestEmptyReportIsFine(t *testing.T) {
	var report Report
	if report.Damaged() || report.Worst() != Note {
		t.Errorf("worst of nothing is %v", report.Worst())
	}
}

func TestSeverityWords(t *testing.T) {
	for s, word := range map[Severity]string{Note: "note", Warning: "warning", Damage: "damage"} {
		if s.String() != word {
			t.Errorf("%d is %q, want %q", s, s, word)
		}
	}
}
