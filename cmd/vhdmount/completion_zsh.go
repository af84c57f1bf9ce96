package main

import (
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

const zshHead = `#compdef vhdmount
_vhdmount_image() {
	if compset -P '*:'; then _files; else compadd -S '' vhd: aio:; fi
}
_vhdmount() {
`

func zshCompletion(w io.Writer, app *cli.App) error {
	p := &script{w: w}
	p.printf("%s", zshHead)
	verbs := completedVerbs(app)
	p.zshVerbs(verbs, "\t", " '--version[print the version]'")
	for _, verb := range verbs {
		tap := verb.tapVerbs()
		if len(tap) == 0 {
			p.zshVerb(verb, "\t")
			continue
		}
		p.printf("\t%s)\n", verb.names())
		p.zshVerbs(tap, "\t\t", "")
		for _, v := range tap {
			p.zshVerb(v, "\t\t")
		}
		p.printf("\t\tesac ;;\n")
	}
	p.printf("\tesac\n}\n_vhdmount \"$@\"\n")
	return p.err
}

// zshVerbs completes the second word, one of verbs or a flag, and begins the
// cases of what comes after each.
func (p *script) zshVerbs(verbs []completed, indent, flags string) {
	line := func(format string, args ...any) { p.printf(indent+format+"\n", args...) }
	line("if ((CURRENT == 2)); then")
	line("\tlocal -a verbs")
	line("\tverbs=(")
	for _, verb := range verbs {
		line("\t\t%s", zshQuote(verb.Name+":"+verb.Usage))
	}
	line("\t)")
	line("\t_describe verb verbs")
	line("\t_arguments '--help[show help]'%s", flags)
	line("\treturn")
	line("fi")
	line("local verb=$words[2]")
	line("shift words")
	line("((CURRENT--))")
	line("case $verb in")
}

// zshVerb is the case of a verb.
func (p *script) zshVerb(v completed, indent string) {
	p.printf("%s%s)\n%s\t_arguments", indent, v.names(), indent)
	for _, f := range v.flags() {
		p.printf(" \\\n%s\t\t%s", indent, v.zshFlag(f))
	}
	switch {
	case v.files:
		p.printf(" \\\n%s\t\t'*:file:_files -g \"*.(#i)(vhd|avhd)\"'", indent)
	case v.words != "":
		p.printf(" \\\n%s\t\t'*:argument:(%s)'", indent, v.words)
	}
	p.printf(" ;;\n")
}

// zshFlag is a flag as _arguments has it.
func (v completed) zshFlag(f cli.DocGenerationFlag) string {
	var out []string
	for _, name := range spelled(f) {
		spec := name
		if f.TakesValue() && strings.HasPrefix(name, "--") {
			spec += "="
		}
		spec += "[" + strings.NewReplacer("[", `\[`, "]", `\]`).Replace(usageOf(f)) + "]"
		words, ok := v.choices[f.Names()[0]]
		switch {
		case strings.HasSuffix(words, ":"): // a path follows
			spec += ":image:_vhdmount_image"
		case words != "":
			spec += ":value:(" + words + ")"
		case ok:
			spec += ":value: "
		case f.TakesValue():
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
