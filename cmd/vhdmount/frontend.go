package main

import (
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/mountopts"
)

// Names of frontends, as --frontend and the registry have them.
const (
	frontendAuto   = "auto"
	frontendFUSE   = "fuse"
	frontendBlktap = "blktap"
)

// chooseFrontend is the frontend to take for what was asked: a mount point and
// the options of one are for FUSE alone; without them auto is blktap where that
// is available, and FUSE elsewhere.
func chooseFrontend(asked, mountpoint string, o mountopts.Options, blktapAvailable func() error) (string, error) {
	files := o.FilesOnly()
	switch asked {
	case frontendFUSE:
		return frontendFUSE, nil
	case frontendAuto:
		if mountpoint == "" && files == "" && blktapAvailable() == nil {
			return frontendBlktap, nil
		}
		return frontendFUSE, nil
	case frontendBlktap:
		switch {
		case mountpoint != "":
			return "", exitcode.Usagef("mount: --frontend blktap shows a block device, not files in %s: leave out the mount point", mountpoint)
		case files != "":
			return "", exitcode.Usagef("mount: -o %s is for FUSE: a block device of blktap is root's alone", files)
		}
		return frontendBlktap, nil
	}
	return "", exitcode.Usagef("mount: --frontend %q is none of auto, fuse, blktap", asked)
}
