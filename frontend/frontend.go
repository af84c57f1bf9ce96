// Package frontend is the contract between a disk and the ways to show it: a
// Frontend takes a blockdev.Device and gives a Session, the disk as other
// programs see it. It holds nothing else; frontend/fuse and frontend/blktap
// implement it, and cmd/vhdmount chooses.
package frontend

import (
	"context"
	"errors"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// ErrBusy is Detach refused because a program has the disk open. Detach's
// error wraps it and says who, where that can be found.
var ErrBusy = errors.New("the disk is in use")

// ErrHidden is a Detach that took the disk out of sight here, while something
// that it can't end uses the disk on. Its error wraps ErrBusy too.
var ErrHidden = errors.New("hidden here")

// ErrUnflushed is a Detach that took the disk away, and could not flush it.
// Its error wraps the reason too.
var ErrUnflushed = errors.New("not flushed")

// Frontend is a way to show a disk.
type Frontend interface {
	// Attach shows dev and returns when it can be opened at Session.Path.
	// The session uses dev until Wait returns, and never closes it: dev
	// belongs to the caller. On error nothing is left behind. Cancelling ctx
	// ends a pending Attach, not the session.
	Attach(ctx context.Context, dev blockdev.Device) (Session, error)
}

// Session is a disk that is shown. Its methods are safe for concurrent use.
type Session interface {
	// Path is what the user opens: a file or a block device.
	Path() string
	// Wait returns when the disk is no longer shown and no request of it is
	// in flight: after Detach, or because someone else took it away (umount,
	// a removed device). The error is why serving ended, nil if orderly.
	Wait() error
	// Detach takes the disk away in order: drain, flush, take away. While a
	// program has it open the error wraps ErrBusy and the disk is still
	// shown, unless lazy was asked for by WithLazy. Where a use comes to light
	// only when the disk is out of sight, the error wraps ErrHidden too, after
	// a bounded wait, and Wait returns when that use has ended. A device that can't be
	// flushed is an error, and the disk is still shown; where it is not, as
	// after a lazy Detach, the error wraps ErrUnflushed.
	Detach(ctx context.Context) error
}

type lazyKey struct{}

// WithLazy returns a context that makes Detach hide the disk at once and
// finish in the background when the last user closes it, as umount -l does.
func WithLazy(ctx context.Context) context.Context {
	return context.WithValue(ctx, lazyKey{}, true)
}

// Lazy tells whether ctx came from WithLazy.
func Lazy(ctx context.Context) bool {
	lazy, _ := ctx.Value(lazyKey{}).(bool)
	return lazy
}
