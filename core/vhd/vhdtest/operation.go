package vhdtest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// Operation is something that a program does to a disk.
type Operation struct {
	Name string
	// Ranged: it concerns the Count sectors of the disk from First on. An
	// operation that is not has the same effect wherever it is.
	Ranged bool
	// Concurrent: it may run beside others on the same image.
	Concurrent bool
	// Stable: once it has succeeded, what was acknowledged before it began is
	// on stable storage.
	Stable bool
	// Tidy: it leaves the image closed, or as it was when it was opened.
	Tidy bool
	// Changes is what it may make of a sector of its range; nil: nothing.
	Changes func(s Step, sector int) Change
	// Resizes: the disk may have another size afterwards.
	Resizes bool
	// Crashes: it ends as in a crash. What it leaves, among what the rules
	// allow, is found out by reading, all over the disk.
	Crashes bool
	// Arg is the number of values that Step.Arg may have; 0: it has no use.
	Arg int
	// Run does it.
	Run func(d *Disk, s Step) error
}

// Change is what an operation makes of one sector.
type Change struct {
	Front, Back bool // the halves concerned
	Value       Tag
	Unsure      bool // the sector may as well stay as it is
}

// Step is an operation of a program.
type Step struct {
	Op           *Operation
	First, Count int // sectors; where the operation is Ranged
	Arg          int

	tag uint32 // what it writes in First
}

// String is the step as it is written in messages: "write 3+2".
func (s Step) String() string {
	text := s.Op.Name
	if s.Op.Ranged {
		text += fmt.Sprintf(" %d+%d", s.First, s.Count)
	}
	if s.Op.Arg > 0 {
		text += fmt.Sprintf("/%d", s.Arg)
	}
	return text
}

// Tag is what the step is to write to a sector of its range.
func (s Step) Tag(sector int) Tag { return Whole(s.tag + uint32(sector-s.First)) }

// bytes is what the step is to write to its range.
func (s Step) bytes() []byte {
	tags := make([]Tag, s.Count)
	for i := range tags {
		tags[i] = s.Tag(s.First + i)
	}
	return Encode(tags)
}

func (s Step) off() int64 { return int64(s.First) * format.SectorSize }
func (s Step) len() int64 { return int64(s.Count) * format.SectorSize }

// Program is steps one after another and, between Before and After, others
// beside one another.
type Program struct {
	Before  []Step
	Beside  [][]Step // each is run by a goroutine
	After   []Step
	Seed    uint64 // of the order in which the calls of Beside are let through
	careful bool   // what the disk shows is read after every step
}

// String is the program in a line.
func (p Program) String() string {
	list := func(steps []Step) string {
		words := make([]string, len(steps))
		for i, s := range steps {
			words[i] = s.String()
		}
		return strings.Join(words, ", ")
	}
	var parts []string
	if len(p.Before) > 0 {
		parts = append(parts, list(p.Before))
	}
	if len(p.Beside) > 0 {
		beside := make([]string, len(p.Beside))
		for i, steps := range p.Beside {
			beside[i] = list(steps)
		}
		parts = append(parts, fmt.Sprintf("{ %s } (schedule %d)", strings.Join(beside, " | "), p.Seed))
	}
	if len(p.After) > 0 {
		parts = append(parts, list(p.After))
	}
	return strings.Join(parts, ", ")
}

// Operations are all that change an image.
func Operations() []Operation {
	return []Operation{
		{Name: "write", Ranged: true, Concurrent: true, Changes: writes, Run: runWrite},
		{Name: "write now", Ranged: true, Concurrent: true, Changes: writes, Run: runWriteNow},
		{Name: "part", Ranged: true, Concurrent: true, Changes: writesPart, Run: runPart},
		{Name: "zero", Ranged: true, Concurrent: true, Changes: zeroes, Run: runZero},
		{Name: "discard", Ranged: true, Concurrent: true, Changes: discards, Run: runDiscard},
		{Name: "flush", Concurrent: true, Stable: true, Run: runFlush},
		{Name: "reopen", Stable: true, Tidy: true, Run: runReopen},
		{Name: "close", Stable: true, Tidy: true, Run: runClose},
		{Name: "snapshot", Stable: true, Run: runSnapshot},
		{Name: "snapshot, larger", Stable: true, Resizes: true, Run: runSnapshotLarger},
		{Name: "killed write", Ranged: true, Arg: 14, Changes: mayWrite, Crashes: true, Run: killed(runWrite, runFlush)},
		{Name: "killed discard", Ranged: true, Arg: 8, Changes: discards, Crashes: true, Run: killed(runDiscard, runFlush)},
		{Name: "killed close", Arg: 12, Crashes: true, Run: killed(runClose)},
		{Name: "killed, snapshot", Crashes: true, Run: runKilledSnapshot},
	}
}

func writes(s Step, sector int) Change {
	return Change{Front: true, Back: true, Value: s.Tag(sector)}
}

func runWrite(d *Disk, s Step) error {
	dev, err := d.Device()
	if err != nil {
		return err
	}
	_, err = dev.WriteAt(s.bytes(), s.off())
	return err
}

// runWriteNow writes without waiting, and waits where that can't be.
func runWriteNow(d *Disk, s Step) error {
	dev, err := d.Device()
	if err != nil {
		return err
	}
	_, err = blockdev.WriteAtNowait(dev, s.bytes(), s.off())
	if errors.Is(err, blockdev.ErrWouldBlock) {
		_, err = dev.WriteAt(s.bytes(), s.off())
	}
	return err
}

// writesPart begins and ends in the middle of a sector.
func writesPart(s Step, sector int) Change {
	first, last := sector == s.First, sector == s.First+s.Count-1
	return Change{Front: !first, Back: first || !last, Value: s.Tag(sector)}
}

func runPart(d *Disk, s Step) error {
	dev, err := d.Device()
	if err != nil {
		return err
	}
	b := s.bytes()[half:]
	if s.Count > 1 {
		b = b[:len(b)-half]
	}
	_, err = dev.WriteAt(b, s.off()+half)
	return err
}

func zeroes(Step, int) Change { return Change{Front: true, Back: true} }

func runZero(d *Disk, s Step) error {
	dev, err := d.Device()
	if err != nil {
		return err
	}
	return blockdev.WriteZeroes(dev, s.off(), s.len())
}

func discards(Step, int) Change { return Change{Front: true, Back: true, Unsure: true} }

func runDiscard(d *Disk, s Step) error {
	dev, err := d.Device()
	if err != nil {
		return err
	}
	_, err = blockdev.Discard(dev, s.off(), s.len())
	return err
}

func runFlush(d *Disk, _ Step) error {
	dev, err := d.Device()
	if err != nil {
		return err
	}
	return dev.Flush()
}

func runReopen(d *Disk, _ Step) error {
	if err := d.Close(); err != nil {
		return err
	}
	_, err := d.Image()
	return err
}

func runClose(d *Disk, _ Step) error { return d.Close() }

// runSnapshot makes a child of the disk, which becomes the disk.
func runSnapshot(d *Disk, _ Step) error { return snapshot(d, 0) }

// runSnapshotLarger makes the child two sectors larger.
func runSnapshotLarger(d *Disk, _ Step) error { return snapshot(d, 2*format.SectorSize) }

func snapshot(d *Disk, more int64) error {
	img, err := d.Image()
	if err != nil {
		return err
	}
	size := img.Size() + more
	if err := d.Close(); err != nil {
		return err
	}
	return branch(d, size)
}

// branch makes a child of the disk's image, which becomes the disk.
func branch(d *Disk, size int64) error {
	child := d.NewName()
	if err := vhd.Snapshot(d.Name, child, vhd.SnapshotOptions{FS: d.FS(), Size: size}); err != nil {
		return err
	}
	d.Name = child
	return nil
}

// runKilledSnapshot makes a child of what a killed process has left, before
// anybody else has opened it.
func runKilledSnapshot(d *Disk, _ Step) error {
	if _, err := d.Image(); err != nil {
		return err
	}
	d.Kill()
	return branch(d, 0)
}

func mayWrite(s Step, sector int) Change {
	return Change{Front: true, Back: true, Value: s.Tag(sector), Unsure: true}
}

// killed does some things in a process that is killed after Arg calls of the
// storage that change something.
func killed(does ...func(d *Disk, s Step) error) func(d *Disk, s Step) error {
	return func(d *Disk, s Step) error {
		if _, err := d.Device(); err != nil {
			return err
		}
		d.process.dieAfter(s.Arg)
		for _, do := range does {
			err := do(d, s)
			if d.process.isDead() {
				break
			}
			if err != nil {
				return err
			}
		}
		d.Kill()
		return nil
	}
}
