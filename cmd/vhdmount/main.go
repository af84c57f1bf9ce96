// Command vhdmount shows the disk inside a VHD image as a file, creates images,
// and looks into them. `vhdmount help` lists the verbs; the manual page
// man/vhdmount.1 has every flag, exit code and file.
//
// This package is the only one that knows both the engine (core/vhd) and a
// frontend. It turns flags into calls, a file a verb, and errors into exit
// codes (internal/exitcode) and messages (message.go).
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/probe"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/umount"
)

func main() {
	if helper, ok := umount.Child(); ok {
		os.Exit(exitcode.Of(unmountForServer(helper)))
	}
	if path, ok := probe.Child(); ok {
		err := probe.Read(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, message(err))
		}
		os.Exit(exitcode.Of(err))
	}
	os.Exit(run(argumentsOf(os.Args), os.Stdout, os.Stderr))
}

// errReported is a failure that the user has been told of already.
var errReported = errors.New("reported")

// run is the command with its arguments; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	out := bufio.NewWriter(stdout)
	err := runApp(newApp(out, stderr), args)
	if flushErr := out.Flush(); err == nil && flushErr != nil {
		err = fmt.Errorf("standard output: %w", flushErr)
	}
	if err != nil && !errors.Is(err, errReported) {
		fmt.Fprintf(stderr, "vhdmount: %s\n", message(err))
	}
	return exitcode.Of(err)
}
