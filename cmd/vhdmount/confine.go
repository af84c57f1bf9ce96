package main

import (
	"context"
	"fmt"

	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/confine"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/umount"
	"github.com/vhdmount/vhdmount/frontend/fuse"
)

// confineServer has this process give up what a server of a disk that is shown
// needs no longer, and returns what ends with the server. It comes before the
// disk is announced: nobody uses it yet, so that no thread waits for another
// while all are stopped. A disk is shown all the same where the kernel lacks a
// part of it, or all; the log has what is missing.
func confineServer(s *diskServer) (end func() error) {
	session, ok := s.session.(fuse.Delegator)
	if !ok {
		s.logConfined(confine.Apply(confine.Options{AnyFile: true, Keep: blktapCapabilities}))
		return nil
	}
	place := session.Place()
	process, err := umount.Start("unmounts "+place.Point, place)
	if err != nil {
		s.log.Warn("not confined", "error", err)
		place.Settle()
		return nil
	}
	session.Delegate(process)
	if err := process.Settle(context.Background()); err != nil {
		s.log.Warn("the disk was not looked at", "error", err)
	}
	s.logConfined(confine.Apply(s.stillNeeded()))
	return process.Close
}

// stillNeeded is what a server of files needs to the end: to go on with the
// image after a pause, and to remove its own traces. An image that it hasn't
// yet comes as open files (control.Request).
func (s *diskServer) stillNeeded() confine.Options {
	o := confine.Options{RemoveIn: []string{s.dir.Path()}}
	for i, layer := range s.layers {
		if i == 0 && !s.plan.open.ReadOnly {
			o.Write = append(o.Write, layer.Name)
		} else {
			o.Read = append(o.Read, layer.Name)
		}
	}
	return o
}

// blktapCapabilities are what a server of block devices needs for as long as it
// lives: memory that stays locked as it grows and is found without swapping, device nodes, images of any owner
// that it is told to open, and a look at who holds a device.
var blktapCapabilities = []cap.Value{cap.IPC_LOCK, cap.SYS_RESOURCE, cap.MKNOD, cap.DAC_OVERRIDE, cap.SYS_PTRACE}

func (s *diskServer) logConfined(state confine.State) { s.log.Debug("confined", "without", state) }

// unmounterCapabilities are what it takes to unmount, and to see who keeps a
// mount busy, of any user.
var unmounterCapabilities = []cap.Value{cap.SYS_ADMIN, cap.SYS_PTRACE, cap.DAC_READ_SEARCH}

// unmountForServer is the process that confineServer started.
func unmountForServer(h *umount.Helper) error {
	if err := confine.DropCapabilities(unmounterCapabilities...); err != nil {
		return fmt.Errorf("unmounting process: %w", err)
	}
	return h.Serve(new(fuse.Place))
}

var _ fuse.Unmounter = (*umount.Process)(nil)
