package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestEveryVerbAndFlagIsInTheManualAndTheCompletions: what the app knows, the
// hand-written page and the scripts know.
func TestEveryVerbAndFlagIsInTheManualAndTheCompletions(t *testing.T) {
	app := newApp(io.Discard, io.Discard)
	page, err := os.ReadFile("../../man/vhdmount.1")
	if err != nil {
		t.Fatal(err)
	}
	manual := strings.ReplaceAll(string(page), `\-`, "-")
	bash, zsh, fish := scriptOf(t, app, bashCompletion), scriptOf(t, app, zshCompletion), scriptOf(t, app, fishCompletion)
	for _, verb := range completedVerbs(app) {
		texts := map[string]string{"manual": manual, "bash": section(bash, "\t", verb), "zsh": section(zsh, "\t", verb), "fish": fishLines(fish, "", verb)}
		wantFlags(t, verb, texts)
		for _, v := range verb.tapVerbs() {
			wantFlags(t, v, map[string]string{
				"manual": manual, "bash": section(texts["bash"], "\t\t", v), "zsh": section(texts["zsh"], "\t\t", v), "fish": fishLines(fish, " tap", v),
			})
		}
	}
}

// wantFlags checks that each text has each flag of a verb, as it spells it.
func wantFlags(t *testing.T, verb completed, texts map[string]string) {
	t.Helper()
	for name, text := range texts {
		if text == "" {
			t.Errorf("%s lacks the verb %s", name, verb.Name)
			continue
		}
		for _, f := range verb.flags() {
			for _, flag := range spelled(f) {
				want := flag
				switch {
				case name == "fish" && len(flag) == 2:
					want = " -s " + flag[1:]
				case name == "fish":
					want = " -l " + flag[2:]
				}
				if !strings.Contains(text, want) {
					t.Errorf("%s lacks %s of %s", name, flag, verb.Name)
				}
			}
		}
	}
}

// section is what a script of bash or zsh has for a verb: from its line to the
// next verb's.
func section(text, indent string, verb completed) string {
	_, after, ok := strings.Cut(text, "\n"+indent+verb.names()+")\n")
	if !ok {
		return ""
	}
	var out strings.Builder
	for line := range strings.Lines(after) {
		if strings.HasPrefix(line, indent) && line[len(indent)] != '\t' && !strings.HasPrefix(line[len(indent):], "esac") {
			break
		}
		out.WriteString(line)
	}
	return "\n" + out.String()
}

// fishLines are those of fish's script for a verb below another, if that isn't
// empty.
func fishLines(script, above string, verb completed) string {
	var out strings.Builder
	for line := range strings.Lines(script) {
		if strings.Contains(line, "'__vhdmount_after"+above+` "`+verb.names()+`"'`) || strings.Contains(line, "'__vhdmount_next "+verb.Name+"'") {
			out.WriteString(line)
		}
	}
	return out.String()
}

func scriptOf(t *testing.T, app *cli.App, write func(io.Writer, *cli.App) error) string {
	t.Helper()
	var out bytes.Buffer
	if err := write(&out, app); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestChoicesAreOfFlagsThatExist: a flag renamed doesn't lose its words.
func TestChoicesAreOfFlagsThatExist(t *testing.T) {
	known, ofTap := map[string]bool{}, map[string]bool{}
	for _, verb := range completedVerbs(newApp(io.Discard, io.Discard)) {
		for _, f := range verb.flags() {
			known[f.Names()[0]] = true
		}
		for _, v := range verb.tapVerbs() {
			for _, f := range v.flags() {
				ofTap[f.Names()[0]] = true
			}
		}
	}
	for name := range choices {
		if !known[name] {
			t.Errorf("words for a flag %q that no verb has", name)
		}
	}
	for name := range tapChoices {
		if !ofTap[name] {
			t.Errorf("words for a flag %q that no verb of tap has", name)
		}
	}
}

// TestBashCompletes runs the script in a real bash, in a directory with images
// and other files.
func TestBashCompletes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"disk.vhd", "my disk.vhd", "old.avhd", "LOUD.VHD", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "mnt"), 0o700); err != nil {
		t.Fatal(err)
	}
	script := scriptOf(t, newApp(io.Discard, io.Discard), bashCompletion)
	for line, want := range map[string]string{
		"vhdmount s":                        "snapshot",
		"vhdmount --v":                      "--version",
		"vhdmount u":                        "unmount",
		"vhdmount mount ":                   "LOUD.VHD,disk.vhd,mnt,my disk.vhd,old.avhd",
		"vhdmount mount d":                  "disk.vhd",
		"vhdmount mount my":                 "my disk.vhd",
		"vhdmount mount --re":               "--read-only",
		"vhdmount mount --durability w":     "writeback,writethrough",
		"vhdmount mount disk.vhd --parent ": "LOUD.VHD,disk.vhd,mnt,my disk.vhd,old.avhd",
		"vhdmount snapshot --pa":            "--parent-dir",
		"vhdmount umount --":                "--help,--lazy",
		"vhdmount create --type ":           "dynamic,fixed",
		"vhdmount completion ":              "bash,fish,zsh",
		"vhdmount help ch":                  "check",
		"vhdmount list ":                    "",
		"vhdmount list --":                  "--help,--json",
		"vhdmount tap unp":                  "unpause",
		"vhdmount tap open --re":            "--read-only,--request-timeout",
		"vhdmount tap open -a ":             "aio:,vhd:",
		"vhdmount tap open -a vhd : d":      "disk.vhd", // bash takes it apart
		"vhdmount tap open --layout 2":      "2010s,2020s",
		"vhdmount tap list --":              "--driver,--file,--help,--json,--minor,--pid",
		"vhdmount tap close -m ":            "",
		"vhdmount tap destroy ":             "",
	} {
		t.Run(line, func(t *testing.T) {
			if got := bashCompletes(t, dir, script, line); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// bashCompletes is what the script offers at the end of line, sorted, with
// commas.
func bashCompletes(t *testing.T, dir, script, line string) string {
	t.Helper()
	words := strings.Split(line, " ")
	last, before := words[len(words)-1], words[len(words)-2]
	cmd := exec.Command("bash", "--norc", "-c", script+`
COMP_WORDS=("${@:3}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_vhdmount vhdmount "$1" "$2"
printf '%s\n' "${COMPREPLY[@]}" | LC_ALL=C sort | paste -sd,
`, "bash", last, before)
	cmd.Args = append(cmd.Args, words...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}
