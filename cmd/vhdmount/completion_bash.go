package main

import (
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

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

// bashTap completes the verb of tap, and the path after vhd: or aio:, which is a
// word of its own to bash.
const bashTap = `	tap)
		if ((COMP_CWORD == 2)); then
			COMPREPLY=($(compgen -W '%s --help' -- "$cur"))
			eval "$extglob"; return
		fi
		if [[ $prev == : || ${COMP_WORDS[COMP_CWORD]} == : ]]; then
			_vhdmount_files "$cur"
			eval "$extglob"; return
		fi
		case ${COMP_WORDS[2]} in
`

func bashCompletion(w io.Writer, app *cli.App) error {
	p := &script{w: w}
	p.printf(bashHead, verbNames(app))
	for _, verb := range completedVerbs(app) {
		tap := verb.tapVerbs()
		if len(tap) == 0 {
			p.bashVerb(verb, "\t")
			continue
		}
		p.printf(bashTap, strings.Join(namesOf(verb.VisibleCommands()), " "))
		for _, v := range tap {
			p.bashVerb(v, "\t\t")
		}
		p.printf("\t\tesac ;;\n")
	}
	p.printf("%s", bashTail)
	return p.err
}

// bashVerb is the case of a verb: by the word before, what a flag's value may be,
// and else by the word itself, a flag or an argument.
func (p *script) bashVerb(v completed, indent string) {
	line := func(format string, args ...any) { p.printf(indent+format+"\n", args...) }
	line("%s)", v.names())
	line("\tcase $prev in")
	var all []string
	for _, f := range v.flags() {
		names := spelled(f)
		all = append(all, names...)
		words, ok := v.choices[f.Names()[0]]
		switch names := strings.Join(names, "|"); {
		case strings.HasSuffix(words, ":"): // a path follows
			line("\t%s) compopt -o nospace 2>/dev/null; COMPREPLY=($(compgen -W '%s' -- \"$cur\")) ;;", names, words)
		case words != "":
			line("\t%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")) ;;", names, words)
		case ok:
			line("\t%s) ;;", names)
		case f.TakesValue():
			line("\t%s) _vhdmount_files \"$cur\" ;;", names)
		}
	}
	line("\t*)")
	line("\t\tcase $cur in")
	line("\t\t-*) COMPREPLY=($(compgen -W '%s' -- \"$cur\")) ;;", strings.Join(all, " "))
	switch {
	case v.files:
		line("\t\t*) _vhdmount_files \"$cur\" ;;")
	case v.words != "":
		line("\t\t*) COMPREPLY=($(compgen -W '%s' -- \"$cur\")) ;;", v.words)
	}
	line("\t\tesac ;;")
	line("\tesac ;;")
}
