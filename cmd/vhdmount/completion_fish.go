package main

import (
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// fishHead knows where on the line it is: __vhdmount_after A B, whether the words
// after the command begin with one of A, which has a | between, and one of B;
// __vhdmount_next A, whether they are these alone. __vhdmount_image offers types of
// image, and after one the paths.
const fishHead = `# fish completion for vhdmount
function __vhdmount_after
	set -l words (commandline -opc)[2..-1]
	for i in (seq (count $argv))
		contains -- "$words[$i]" (string split '|' -- $argv[$i]); or return 1
	end
end
function __vhdmount_next
	test (count (commandline -opc)) -eq (math (count $argv) + 1); and __vhdmount_after $argv
end
function __vhdmount_image
	printf '%s\n' vhd: aio:
	set -l type (string match -r '^(?:vhd|aio):' -- (commandline -ct)); or return
	printf $type'%s\n' (__fish_complete_path (string replace -- $type '' (commandline -ct)) | string replace -r '\t.*' '')
end
complete -c vhdmount -f
complete -c vhdmount -n __vhdmount_next -l help -d 'show help'
complete -c vhdmount -n __vhdmount_next -l version -d 'print the version'
`

func fishCompletion(w io.Writer, app *cli.App) error {
	p := &script{w: w}
	p.printf("%s", fishHead)
	for _, verb := range completedVerbs(app) {
		p.fishVerb(verb, "")
		for _, v := range verb.tapVerbs() {
			p.fishVerb(v, " "+verb.Name)
		}
	}
	return p.err
}

// fishVerb are the lines of a verb that comes after the verb above, if that isn't
// empty.
func (p *script) fishVerb(v completed, above string) {
	p.printf("complete -c vhdmount -n %s -a %s -d %s\n", fishQuote("__vhdmount_next"+above), v.Name, fishQuote(v.Usage))
	after := fishQuote("__vhdmount_after" + above + ` "` + v.names() + `"`)
	if len(v.VisibleCommands()) > 0 {
		after = fishQuote("__vhdmount_next " + v.Name)
	}
	for _, f := range v.flags() {
		p.printf("complete -c vhdmount -n %s%s\n", after, v.fishFlag(f))
	}
	switch {
	case v.files:
		p.printf("complete -c vhdmount -n %s -a '(__fish_complete_suffix .vhd; __fish_complete_suffix .avhd)'\n", after)
	case v.words != "":
		p.printf("complete -c vhdmount -n %s -a '%s'\n", after, v.words)
	}
}

// fishFlag is a flag as complete has it.
func (v completed) fishFlag(f cli.DocGenerationFlag) string {
	out := ""
	for _, name := range f.Names() {
		if len(name) == 1 {
			out += " -s " + name
		} else {
			out += " -l " + name
		}
	}
	words, ok := v.choices[f.Names()[0]]
	switch {
	case strings.HasSuffix(words, ":"): // a path follows
		out += " -x -a '(__vhdmount_image)'"
	case words != "":
		out += " -x -a '" + words + "'"
	case ok:
		out += " -x"
	case f.TakesValue():
		out += " -r -F"
	}
	return out + " -d " + fishQuote(usageOf(f))
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
