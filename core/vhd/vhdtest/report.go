package vhdtest

import (
	"fmt"
	"time"
)

// Report is what an exploration did.
type Report struct {
	Kind     string
	Programs int // run, second lives among them
	Beside   int // … of them, how many had steps beside one another
	Lives    int // … how many went on from what a crash had left
	Points   int // at which the power was cut
	Looked   int // states looked at
	States   int // … of them, different ones
	Flushes  int // of images of the kind, with nothing beside them
	Syncs    int // that these cost
	MostSync int // that one of these cost
	Elapsed  time.Duration
}

// String is the report in a line.
func (r *Report) String() string {
	perSecond, perFlush := 0.0, 0.0
	if r.Elapsed > 0 {
		perSecond = float64(r.States) / r.Elapsed.Seconds()
	}
	if r.Flushes > 0 {
		perFlush = float64(r.Syncs) / float64(r.Flushes)
	}
	return fmt.Sprintf("%-52s %6d programs (%d concurrent, %d second lives) %8d points %9d states (%d looked at) %6.0f/s  %.2f syncs a flush, at most %d",
		r.Kind, r.Programs, r.Beside, r.Lives, r.Points, r.States, r.Looked, perSecond, perFlush, r.MostSync)
}

// Failure is a state that breaks a rule, or a program that went wrong.
type Failure struct {
	Kind    string
	Program Program
	Life    *Program // that went on from a state that Program left; nil: none
	Point   int      // calls until the power was cut; -1: it was not
	Call    string   // the last of these
	State   string   // which of the point's states it is
	Rule    int      // that is broken; 0: the program itself went wrong
	Err     error
}

// Error tells where to look.
func (f *Failure) Error() string {
	text := fmt.Sprintf("%s\nprogram: %v\n", f.Kind, f.Program)
	if f.Life != nil {
		text += fmt.Sprintf("second life: %v\n", *f.Life)
	}
	if f.Point >= 0 {
		text += fmt.Sprintf("power cut after %d calls (%s), %s\n", f.Point, f.Call, f.State)
	}
	return text + f.Err.Error()
}

// Unwrap is what went wrong.
func (f *Failure) Unwrap() error { return f.Err }

// Add adds what another exploration did, but for the time it took.
func (r *Report) Add(o *Report) {
	r.Programs += o.Programs
	r.Beside += o.Beside
	r.Lives += o.Lives
	r.Points += o.Points
	r.Looked += o.Looked
	r.States += o.States
	r.Flushes += o.Flushes
	r.Syncs += o.Syncs
	r.MostSync = max(r.MostSync, o.MostSync)
}
