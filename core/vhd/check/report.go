package check

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Severity says how much a finding matters.
type Severity int

const (
	// Note is worth knowing and harms nobody: space that belongs to no block,
	// a habit of the image's writer.
	Note Severity = iota
	// Warning leaves every byte of the disk readable here, but another
	// program may refuse the image or read it otherwise, or its second line
	// of defence is gone.
	Warning
	// Damage is a structure that contradicts the format or the file: part of
	// the disk can't be trusted, or the image must not be written to.
	Damage
)

// String is the severity's word in a finding: note, warning or damage.
func (s Severity) String() string {
	switch s {
	case Note:
		return "note"
	case Warning:
		return "warning"
	default:
		return "damage"
	}
}

// Finding is one thing that a check found.
type Finding struct {
	Severity Severity
	Image    string // the file's name, as it was opened
	Place    string // "footer", "BAT", "block 17", "locator 3" …
	Message  string // the fact with its numbers, then what to do about it
}

// String is the finding on one line, safe on a terminal: what can't be printed
// of the names that an image has in it is escaped.
func (f Finding) String() string {
	line := fmt.Sprintf("%s: %v: %s: %s", f.Image, f.Severity, f.Place, f.Message)
	if utf8.ValidString(line) && strings.IndexFunc(line, unprintable) < 0 {
		return line
	}
	quoted := strconv.Quote(line)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func unprintable(r rune) bool { return !strconv.IsPrint(r) }

// MaxFindings is how many findings a Report lists one by one. One more tells
// how many others there were, with the severity of the worst of them.
const MaxFindings = 1000

// Report is what a check found. The numbers are those of the image itself;
// the findings are those of its parents too.
type Report struct {
	// Findings come in the order in which an image is walked: footers, header,
	// batmap, locators, BAT, then what lies in the file, upwards, then the
	// parent; after them those of the parent itself.
	Findings []Finding
	// LeakedBytes is the space in the file that belongs to no structure and
	// no block, alignment between blocks left out. In an image with damage it
	// may be anything.
	LeakedBytes int64
	// Blocks is how many blocks the disk has, 0 for a fixed one.
	Blocks int64
	// Allocated is how many of Blocks have a place in the file, by the first
	// 8 Mi entries of the BAT; a longer one is Damage.
	Allocated int64
}

// Damaged tells whether any finding is Damage.
func (r *Report) Damaged() bool { return r.Worst() == Damage && len(r.Findings) > 0 }

// Worst is the highest severity among the findings; Note if there are none.
func (r *Report) Worst() Severity {
	worst := Note
	for _, f := range r.Findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// findings gathers what a check finds, and bounds it.
type findings struct {
	list    []Finding
	dropped int64    // findings past MaxFindings
	worst   Severity // of the dropped
}

// full tells whether the next finding is only counted, so that a caller can
// save itself the words.
func (f *findings) full() bool { return len(f.list) >= MaxFindings }

// drop counts a finding that is not listed.
func (f *findings) drop(s Severity) {
	f.dropped++
	f.worst = max(f.worst, s)
}

func (f *findings) add(one Finding) {
	if f.full() {
		f.drop(one.Severity)
		return
	}
	f.list = append(f.list, one)
}

// close is the list, with a last line for what it doesn't show.
func (f *findings) close(image string) []Finding {
	if f.dropped == 0 {
		return f.list
	}
	return append(f.list, Finding{
		Severity: f.worst,
		Image:    image,
		Place:    "report",
		Message:  fmt.Sprintf("%d more findings, not listed", f.dropped),
	})
}

// spot is a place of an image that findings are reported for.
type spot struct {
	img   *image
	place string
}

func (s spot) note(text string, args ...any)   { s.report(Note, text, args...) }
func (s spot) warn(text string, args ...any)   { s.report(Warning, text, args...) }
func (s spot) damage(text string, args ...any) { s.report(Damage, text, args...) }

func (s spot) report(sev Severity, text string, args ...any) {
	s.img.found.add(Finding{sev, s.img.name, s.place, fmt.Sprintf(text, args...)})
}

// at names a place of the image.
func (img *image) at(place string) spot { return spot{img, place} }

// block reports a finding about a block. An image can have millions of bad
// blocks: those past the cap cost no formatting.
func (img *image) block(sev Severity, n int64, text string, args ...any) {
	if img.found.full() {
		img.found.drop(sev)
		return
	}
	img.at(fmt.Sprintf("block %d", n)).report(sev, text, args...)
}
