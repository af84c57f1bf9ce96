// Package probe asks a new block device whether it answers, in a process of its
// own. The device's server must not do it: killed while it has the device open
// and a read under way, it would wait, in the close, for an answer that it alone
// could have given, and neither the process nor the device would ever go.
//
//	if path, ok := probe.Child(); ok {
//		return probe.Read(path)
//	}
//	err := probe.Device(path)
package probe

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/self"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// variable tells the process which device it is to read from.
const variable = "VHDMOUNT_PROBE"

// Device reads the first sector of the block device at path. It returns when the
// device has answered, or is gone.
func Device(path string) error {
	cmd, err := self.Command("probes " + path)
	if err != nil {
		return fmt.Errorf("%s: reading it: %w", path, err)
	}
	var said bytes.Buffer
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), variable+"="+path)
	cmd.Stderr = &said
	err = cmd.Run()
	switch text := string(bytes.TrimSpace(said.Bytes())); {
	case err == nil:
		return nil
	case text != "":
		return errors.New(text)
	}
	return fmt.Errorf("%s: reading it: %w", path, err)
}

// Child is the device to read from, in a process that Device started, and false
// in any other.
func Child() (path string, ok bool) { return os.LookupEnv(variable) }

// Read reads the first sector of the block device at path.
func Read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(make([]byte, blockdev.SectorSize), 0)
	return err
}
