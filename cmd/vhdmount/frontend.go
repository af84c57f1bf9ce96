package main

import (
	"errors"
	"fmt"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
)

// Names of frontends, as --frontend and the registry have them.
const (
	frontendAuto   = "auto"
	frontendFUSE   = "fuse"
	frontendBlktap = "blktap"
)

var errNoBlktap = errors.New("this version has no blktap frontend: leave out --frontend blktap, and the disk is shown through FUSE")

// chooseFrontend is the frontend to take for what was asked. auto is FUSE:
// the one frontend that there is.
func chooseFrontend(asked string) (string, error) {
	switch asked {
	case frontendAuto, frontendFUSE:
		return frontendFUSE, nil
	case frontendBlktap:
		return "", fmt.Errorf("mount: %w", errNoBlktap)
	}
	return "", exitcode.Usagef("mount: --frontend %q is none of auto, fuse, blktap", asked)
}
