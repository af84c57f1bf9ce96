package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// What the built program says of itself with --version.
const (
	Version = "7.6.5"
	Commit  = "0123456789ab"
)

// binaryDir is where Main has the program built.
var binaryDir string

// Main is a package's TestMain; it returns the exit code.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "vhdmount-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // other users run the program too
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaryDir = dir
	return m.Run()
}

// Binary is the program, built when it is first asked for.
func Binary(t testing.TB) string {
	t.Helper()
	file, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

var build = sync.OnceValues(func() (string, error) {
	if binaryDir == "" {
		return "", errors.New("harness: the package's TestMain doesn't call Main")
	}
	file := filepath.Join(binaryDir, "vhdmount")
	return file, buildInto(file)
})

// buildInto builds the program with the race detector. A machine that has no C
// compiler for it does without, but not where the tests themselves have it, or
// in CI: what was asked for there would not be done.
func buildInto(file string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	err = goBuild(root, file, "-race")
	if err == nil || raceDetector || os.Getenv("CI") == "true" {
		return err
	}
	fmt.Fprintf(os.Stderr, "harness: the program is built without the race detector: %v\n", err)
	return goBuild(root, file)
}

func goBuild(root, file string, flags ...string) error {
	args := append([]string{"build"}, flags...)
	args = append(args, "-buildvcs=false", "-ldflags", "-X main.version="+Version+" -X main.commit="+Commit, "-o", file, "./cmd/vhdmount")
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w: %s", args[0], err, out)
	}
	return nil
}

// moduleRoot is the nearest directory above with a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			err = errors.New("harness: no go.mod above the tests")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}
