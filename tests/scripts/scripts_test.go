package scripts

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	withFuse  = flag.Bool("fuse", false, "run the tests that need /dev/fuse")
	withTools = flag.Bool("tools", false, "run the tests that need e2fsprogs, sfdisk and qemu-img")
)

// copyTo copies files of this repository, by their names in it, below dir.
func copyTo(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(data), 0o755)
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// sample is a module whose packages ask for flags in every way there is.
var sample = map[string]string{
	"go.mod":           "module example.com/m\n\ngo 1.26\n",
	"plain/p.go":       "package plain\n",
	"plain/p_test.go":  "package plain\n\nimport \"testing\"\n\nfunc TestP(t *testing.T) {}\n",
	"untested/u.go":    "package untested\n",
	"direct/d_test.go": "package direct\n\nimport \"flag\"\n\nvar f, r = flag.Bool(\"fuse\", false, \"\"), flag.Bool(\"root\", false, \"\")\n",
	"byvar/v_test.go":  "package byvar\n\nimport \"flag\"\n\nvar q bool\n\nfunc init() { flag.BoolVar(&q, \"qemu\", false, \"\") }\n",
	"other/o_test.go":  "package other\n\nimport \"flag\"\n\nvar u = flag.Bool(\"update\", false, \"\")\n",
	"need/need.go":     "package need\n\nimport \"flag\"\n\nvar Tools = flag.Bool(\"tools\", false, \"\")\n",
	"helped/h_test.go": "package helped_test\n\nimport \"example.com/m/need\"\n\nvar _ = need.Tools\n",
}

// shim stands in for the go command: it lists packages, and notes what it was
// to test. One package fails.
const shim = `#!/bin/sh
case $1 in
list) exec %s "$@" ;;
esac
echo "$@" >>%s
case "$*" in *example.com/m/byvar*) exit 1 ;; esac
`

func TestRunTestsGivesEachPackageItsFlags(t *testing.T) {
	dir := t.TempDir()
	copyTo(t, dir, "scripts/run-tests")
	for name, text := range sample {
		write(t, filepath.Join(dir, name), text, 0o644)
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	calls := filepath.Join(t.TempDir(), "calls")
	write(t, filepath.Join(dir, "bin/go"), fmt.Sprintf(shim, goTool, calls), 0o755)

	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "scripts/run-tests"))
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("run-tests: %v, want exit 1 for the package that fails\n%s", err, out)
	}
	got, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(got)), "\n")
	const run = "test -count=1 -timeout 14m example.com/m/"
	for _, want := range []string{
		"vet ./...",
		run + "other example.com/m/plain -race",
		run + "helped -race -tools",
		run + "byvar -race -qemu",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no call %q among:\n%s", want, got)
		}
	}
	checkMachine(t, lines, out)
}

// checkMachine checks what depends on the machine: a flag is passed, or a line
// says why not.
func checkMachine(t *testing.T, lines []string, out []byte) {
	t.Helper()
	i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "example.com/m/direct") })
	if i < 0 {
		t.Fatalf("the package with -fuse and -root is not tested:\n%s", strings.Join(lines, "\n"))
	}
	for _, name := range []string{"fuse", "root"} {
		passed := slices.Contains(strings.Fields(lines[i]), "-"+name)
		said := bytes.Contains(out, []byte("(-"+name+") are left out"))
		if passed == said {
			t.Errorf("-%s: passed %t, said to be left out %t:\n%s", name, passed, said, out)
		}
	}
	if root := os.Geteuid() == 0; root != slices.Contains(strings.Fields(lines[i]), "-root") {
		t.Errorf("-root for root alone: %s", lines[i])
	}
}

func TestDepsRefusesWithoutAGroup(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "../../scripts/deps")
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "GROUP") {
		t.Errorf("exit %d, want 2 and the usage:\n%s", cmd.ProcessState.ExitCode(), out)
	}
}

func TestDepsIsSilentWhereNothingIsMissing(t *testing.T) {
	if !*withTools {
		t.Skip("needs -tools")
	}
	out, err := exec.CommandContext(t.Context(), "../../scripts/deps", "demo", "test").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v, %q, want nothing", err, out)
	}
}

// TestDemo runs the demo with a binary built for it, and checks that it got to
// its end and left nothing.
func TestDemo(t *testing.T) {
	if !*withFuse || !*withTools {
		t.Skip("needs -fuse and -tools")
	}
	dir, tmp := t.TempDir(), t.TempDir()
	copyTo(t, dir, "scripts/demo", "LICENSE")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "vhdmount"), "../../cmd/vhdmount")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "scripts/demo"))
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	for _, want := range []string{"Hello from inside the disk.", "Images are identical.", "p1.raw", "To go on by hand"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the demo does not say %q:\n%s", want, out)
		}
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "vhdmount-demo-*")); err != nil || len(left) > 0 {
		t.Errorf("the demo left %q, %v", left, err)
	}
}
