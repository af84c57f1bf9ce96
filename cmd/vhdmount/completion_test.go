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
	for _, verb := range app.Commands {
		for name, text := range map[string]string{"manual": manual, "bash": bash, "zsh": zsh, "fish": fish} {
			if !strings.Contains(text, verb.Name) {
				t.Errorf("%s lacks the verb %s", name, verb.Name)
			}
		}
		for _, f := range flagsOf(verb.Flags) {
			for _, flag := range spelled(f) {
				for name, text := range map[string]string{
					"manual": manual, "bash": section(bash, "\t"+strings.Join(verb.Names(), "|")+")"), "zsh": section(zsh, "\t"+strings.Join(verb.Names(), "|")+")"),
				} {
					if !strings.Contains(text, flag) {
						t.Errorf("%s lacks %s of %s", name, flag, verb.Name)
					}
				}
				fishName := " -l " + strings.TrimPrefix(flag, "--")
				if len(flag) == 2 {
					fishName = " -s " + flag[1:]
				}
				if !strings.Contains(fish, "'__fish_seen_subcommand_from "+strings.Join(verb.Names(), " ")+"'") || !strings.Contains(fish, fishName) {
					t.Errorf("fish lacks %s of %s", flag, verb.Name)
				}
			}
		}
	}
}

func scriptOf(t *testing.T, app *cli.App, write func(io.Writer, *cli.App) error) string {
	t.Helper()
	var out bytes.Buffer
	if err := write(&out, app); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// section is text from a line that begins with head to the next verb's.
func section(text, head string) string {
	_, after, ok := strings.Cut(text, "\n"+head)
	if !ok {
		return ""
	}
	end := strings.Index(after, "\n\t\tesac ;;\n")
	if end < 0 {
		end = strings.Index(after, " ;;\n")
	}
	return after[:max(end, 0)]
}

// TestChoicesAreOfFlagsThatExist: a flag renamed doesn't lose its words.
func TestChoicesAreOfFlagsThatExist(t *testing.T) {
	known := map[string]bool{}
	for _, verb := range newApp(io.Discard, io.Discard).Commands {
		for _, f := range verb.Flags {
			known[f.Names()[0]] = true
		}
	}
	for name := range choices {
		if !known[name] {
			t.Errorf("words for a flag %q that no verb has", name)
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
