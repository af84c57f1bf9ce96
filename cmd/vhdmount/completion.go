package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
)

func completionVerb() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that makes a shell complete vhdmount's command line",
		UsageText: "vhdmount completion bash|zsh|fish",
		Description: "bash:  source <(vhdmount completion bash)\n" +
			"zsh:   vhdmount completion zsh > \"${fpath[1]}/_vhdmount\"\n" +
			"fish:  vhdmount completion fish > ~/.config/fish/completions/vhdmount.fish",
		Action: completion,
	}
}

func completion(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	write, ok := map[string]func(io.Writer, *cli.App) error{
		"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion,
	}[args[0]]
	if !ok {
		return exitcode.Usagef("completion: %q is none of bash, zsh, fish", args[0])
	}
	return write(c.App.Writer, c.App)
}

// choices are the values of flags that take one of a few words.
var choices = map[string]string{
	"frontend":   "auto fuse blktap",
	"durability": "writeback writethrough unsafe",
	"size-from":  "auto geometry footer",
	"log-level":  "debug info warn error",
	"log-format": "text json",
	"type":       "dynamic fixed",
	"o":          "ro rw allow_other allow_root uid= gid= umask= fsname= default_permissions",
}

// tapChoices are those of the verbs of tap. A number has no words, and is no file.
var tapChoices = map[string]string{
	"args":            "vhd: aio:",
	"secondary":       "vhd: aio:",
	"layout":          "auto 2010s 2020s",
	"driver":          "vhd aio",
	"pid":             "",
	"minor":           "",
	"parent":          "",
	"timeout":         "",
	"request-timeout": "",
}

// completed is a verb as the scripts have it: one of vhdmount's, or of tap's.
type completed struct {
	*cli.Command
	choices map[string]string // of its flags
	words   string            // that its arguments may be
	files   bool              // its arguments are images and mount points
}

// names are the verb's, as a shell's pattern.
func (v completed) names() string { return strings.Join(v.Names(), "|") }

// flags are the verb's, --help included.
func (v completed) flags() []cli.DocGenerationFlag { return flagsOf(v.Command.Flags) }

// completedVerbs are the verbs of the command line.
func completedVerbs(app *cli.App) []completed {
	var out []completed
	for _, verb := range app.Commands {
		v := completed{Command: verb, choices: choices}
		switch verb.Name {
		case "completion":
			v.words = "bash zsh fish"
		case "help":
			v.words = verbNames(app)
		case "list", "tap":
		default:
			v.files = true
		}
		out = append(out, v)
	}
	return out
}

// tapVerbs are the verbs of v, if it is tap: they take flags and no arguments.
func (v completed) tapVerbs() []completed {
	var out []completed
	for _, verb := range v.VisibleCommands() {
		out = append(out, completed{Command: verb, choices: tapChoices})
	}
	return out
}

func verbNames(app *cli.App) string { return strings.Join(namesOf(app.Commands), " ") }

func namesOf(verbs []*cli.Command) []string {
	var names []string
	for _, verb := range verbs {
		names = append(names, verb.Name)
	}
	return names
}

// spelled is a flag's names with their dashes.
func spelled(f cli.Flag) []string {
	var out []string
	for _, name := range f.Names() {
		if len(name) == 1 {
			out = append(out, "-"+name)
		} else {
			out = append(out, "--"+name)
		}
	}
	return out
}

// usageOf is a flag's description, without the marks of its value's name.
func usageOf(f cli.DocGenerationFlag) string { return strings.ReplaceAll(f.GetUsage(), "`", "") }

// script is written until the first error.
type script struct {
	w   io.Writer
	err error
}

func (p *script) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}
