// Package self runs this program again, for what the process at hand can't do
// or had better not do itself.
package self

import (
	"os"
	"os/exec"
)

// Command is this program with other arguments. It has the name that this
// process was called by.
func Command(args ...string) (*exec.Cmd, error) {
	// The program's own file, so that it is found by it in ps and among the
	// holders of a file; the link only where the file was replaced meanwhile.
	file, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(file); err != nil {
		file = "/proc/self/exe"
	}
	cmd := exec.Command(file)
	cmd.Args = append([]string{os.Args[0]}, args...)
	return cmd, nil
}
