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

// argumentWords are the arguments of verbs that take words, not files.
func argumentWords(verb *cli.Command, app *cli.App) (words string, ok bool) {
	switch verb.Name {
	case "completion":
		return "bash zsh fish", true
	case "help":
		return verbNames(app), true
	case "list":
		return "", true
	case "tap":
		return strings.Join(namesOf(verb.VisibleCommands()), " "), true
	}
	return "", false
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

const bashHead = `# bash completion for vhdmount
_vhdmount_files() {
	compopt -o filenames 2>/dev/null
	local IFS=$'\n'
	COMPREPLY=($(compgen -d -- "$1"; compgen -f -X '!*.@(vhd|avhd|VHD|AVHD)' -- "$1"))
}
_vhdmount() {
	local cur=$2 prev=$3 verb=${COMP_WORDS[1]} extglob
	extglob=$(shopt -p extglob); shopt -s extglob
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W '%s --help --version' -- "$cur"))
		eval "$extglob"; return
	fi
	case $verb in
`

const bashTail = `	esac
	eval "$extglob"
}
complete -F _vhdmount vhdmount
`

func bashCompletion(w io.Writer, app *cli.App) error {
	p := &script{w: w}
	p.printf(bashHead, verbNames(app))
	for _, verb := range app.Commands {
		p.printf("\t%s)\n\t\tcase $prev in\n", strings.Join(verb.Names(), "|"))
		var all []string
		for _, f := range flagsOf(verb.Flags) {
			all = append(all, spelled(f)...)
			if words, ok := choices[f.Names()[0]]; ok {
				p.printf("\t\t%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")) ;;\n", strings.Join(spelled(f), "|"), words)
			} else if f.TakesValue() {
				p.printf("\t\t%s) _vhdmount_files \"$cur\" ;;\n", strings.Join(spelled(f), "|"))
			}
		}
		p.printf("\t\t*)\n\t\t\tcase $cur in\n\t\t\t-*) COMPREPLY=($(compgen -W '%s' -- \"$cur\")) ;;\n", strings.Join(all, " "))
		if words, ok := argumentWords(verb, app); ok {
			p.printf("\t\t\t*) COMPREPLY=($(compgen -W '%s' -- \"$cur\")) ;;\n", words)
		} else {
			p.printf("\t\t\t*) _vhdmount_files \"$cur\" ;;\n")
		}
		p.printf("\t\t\tesac ;;\n\t\tesac ;;\n")
	}
	p.printf("%s", bashTail)
	return p.err
}

func zshCompletion(w io.Writer, app *cli.App) error {
	p := &script{w: w}
	p.printf("#compdef vhdmount\n_vhdmount() {\n\tlocal -a verbs\n\tverbs=(\n")
	for _, verb := range app.Commands {
		p.printf("\t\t%s\n", zshQuote(verb.Name+":"+verb.Usage))
	}
	p.printf("\t)\n\tif ((CURRENT == 2)); then\n\t\t_describe verb verbs\n\t\t_arguments '--help[show help]' '--version[print the version]'\n\t\treturn\n\tfi\n")
	p.printf("\tlocal verb=$words[2]\n\tshift words\n\t((CURRENT--))\n\tcase $verb in\n")
	for _, verb := range app.Commands {
		p.printf("\t%s)\n\t\t_arguments", strings.Join(verb.Names(), "|"))
		for _, f := range flagsOf(verb.Flags) {
			p.printf(" \\\n\t\t\t%s", zshFlag(f))
		}
		if words, ok := argumentWords(verb, app); ok {
			p.printf(" \\\n\t\t\t'*:argument:(%s)' ;;\n", words)
		} else {
			p.printf(" \\\n\t\t\t'*:file:_files -g \"*.(#i)(vhd|avhd)\"' ;;\n")
		}
	}
	p.printf("\tesac\n}\n_vhdmount \"$@\"\n")
	return p.err
}

// zshFlag is a flag as _arguments has it.
func zshFlag(f cli.DocGenerationFlag) string {
	var out []string
	for _, name := range spelled(f) {
		spec := name
		if f.TakesValue() && strings.HasPrefix(name, "--") {
			spec += "="
		}
		spec += "[" + strings.NewReplacer("[", `\[`, "]", `\]`).Replace(usageOf(f)) + "]"
		if words, ok := choices[f.Names()[0]]; ok {
			spec += ":value:(" + words + ")"
		} else if f.TakesValue() {
			spec += ":value:_files"
		}
		if repeated(f) {
			spec = "*" + spec
		}
		out = append(out, zshQuote(spec))
	}
	return strings.Join(out, " ")
}

// repeated tells whether a flag may be given more than once.
func repeated(f cli.Flag) bool {
	_, ok := f.(*cli.StringSliceFlag)
	return ok
}

func zshQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func fishCompletion(w io.Writer, app *cli.App) error {
	p := &script{w: w}
	p.printf("# fish completion for vhdmount\n")
	p.printf("complete -c vhdmount -f\n")
	p.printf("complete -c vhdmount -n __fish_use_subcommand -l help -d 'show help'\n")
	p.printf("complete -c vhdmount -n __fish_use_subcommand -l version -d 'print the version'\n")
	for _, verb := range app.Commands {
		p.printf("complete -c vhdmount -n __fish_use_subcommand -a %s -d %s\n", verb.Name, fishQuote(verb.Usage))
		seen := fmt.Sprintf("-n '__fish_seen_subcommand_from %s'", strings.Join(verb.Names(), " "))
		for _, f := range flagsOf(verb.Flags) {
			p.printf("complete -c vhdmount %s%s\n", seen, fishFlag(f))
		}
		if words, ok := argumentWords(verb, app); ok {
			p.printf("complete -c vhdmount %s -a '%s'\n", seen, words)
		} else {
			p.printf("complete -c vhdmount %s -a '(__fish_complete_suffix .vhd; __fish_complete_suffix .avhd)'\n", seen)
		}
	}
	return p.err
}

// fishFlag is a flag as complete has it.
func fishFlag(f cli.DocGenerationFlag) string {
	out := ""
	for _, name := range f.Names() {
		if len(name) == 1 {
			out += " -s " + name
		} else {
			out += " -l " + name
		}
	}
	if words, ok := choices[f.Names()[0]]; ok {
		out += " -x -a '" + words + "'"
	} else if f.TakesValue() {
		out += " -r -F"
	}
	return out + " -d " + fishQuote(usageOf(f))
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

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
