package argv

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

type flag struct {
	names string
	value bool
}

func (f flag) Names() []string  { return strings.Split(f.names, " ") }
func (f flag) TakesValue() bool { return f.value }

var mountFlags = []flag{{"read-only r", false}, {"foreground f", false}, {"o", true}, {"parent", true}, {"json", false}}

func TestArrange(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "--",
		"disk.vhd mnt":                    "-- disk.vhd mnt",
		"disk.vhd mnt -r":                 "--read-only -- disk.vhd mnt",
		"-r disk.vhd -f mnt":              "--read-only --foreground -- disk.vhd mnt",
		"-rf disk.vhd":                    "--read-only --foreground -- disk.vhd",
		"-r --read-only disk.vhd":         "--read-only --read-only -- disk.vhd",
		"disk.vhd -o ro mnt":              "--o=ro -- disk.vhd mnt",
		"disk.vhd -oro,uid=5 mnt":         "--o=ro,uid=5 -- disk.vhd mnt",
		"disk.vhd -rfoallow_other":        "--read-only --foreground --o=allow_other -- disk.vhd",
		"disk.vhd -rfo allow_other":       "--read-only --foreground --o=allow_other -- disk.vhd",
		"disk.vhd --parent=base.vhd":      "--parent=base.vhd -- disk.vhd",
		"disk.vhd --parent base.vhd x":    "--parent=base.vhd -- disk.vhd x",
		"disk.vhd --parent -odd.vhd":      "--parent=-odd.vhd -- disk.vhd",
		"--parent= disk.vhd":              "--parent= -- disk.vhd",
		"-json disk.vhd":                  "--json -- disk.vhd",
		"--json=false disk.vhd":           "--json=false -- disk.vhd",
		"-r -- -f --parent":               "--read-only -- -f --parent",
		"disk.vhd -- -r":                  "-- disk.vhd -r",
		"- -r":                            "--read-only -- -",
		"--parent a --parent b --parent-": "!unknown flag --parent-",
		"disk.vhd --bogus":                "!unknown flag --bogus",
		"disk.vhd --bogus=1":              "!unknown flag --bogus",
		"disk.vhd -x":                     "!unknown flag -x",
		"disk.vhd -rx":                    "!unknown flag -rx",
		"disk.vhd --parent":               "!flag --parent needs a value",
		"disk.vhd -ro":                    "!flag -o needs a value",
	} {
		t.Run(in, func(t *testing.T) {
			got, err := Arrange(strings.Fields(in), mountFlags)
			text := strings.Join(got, " ")
			if err != nil {
				text = "!" + err.Error()
			}
			if text != want {
				t.Errorf("got  %s\nwant %s", text, want)
			}
		})
	}
}

func TestArrangeKeepsEmptyAndSpacedArguments(t *testing.T) {
	got, err := Arrange([]string{"", "my disk.vhd", "--parent", "the base.vhd"}, mountFlags)
	want := []string{"--parent=the base.vhd", "--", "", "my disk.vhd"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestErrorsAreTyped(t *testing.T) {
	var unknown *UnknownFlagError
	if _, err := Arrange([]string{"--jsn"}, mountFlags); !errors.As(err, &unknown) || unknown.Flag != "--jsn" {
		t.Errorf("unknown flag: %v", err)
	}
	var missing *MissingValueError
	if _, err := Arrange([]string{"--parent"}, mountFlags); !errors.As(err, &missing) || missing.Flag != "--parent" {
		t.Errorf("missing value: %v", err)
	}
}
