// Package argv puts a verb's arguments in the order that urfave/cli reads: all
// flags first, then "--", then the rest. The library stops at the first
// argument that is no flag; people write `mount disk.vhd mnt -r`.
//
// It also knows getopt's short forms, which the library doesn't: -rf for
// -r -f, and -oro for -o ro.
package argv

import (
	"fmt"
	"strings"
)

// Flag is what must be known of a flag. The first of its names is the one that
// Arrange writes.
type Flag interface {
	Names() []string
	TakesValue() bool
}

// UnknownFlagError is a flag that the verb doesn't have, with its dashes.
type UnknownFlagError struct{ Flag string }

// Error implements error.
func (e *UnknownFlagError) Error() string { return "unknown flag " + e.Flag }

// MissingValueError is a flag at the end that wants a value.
type MissingValueError struct{ Flag string }

// Error implements error.
func (e *MissingValueError) Error() string { return fmt.Sprintf("flag %s needs a value", e.Flag) }

// Arrange returns args, those after the verb, as --flag or --flag=value by the
// flags' first names, then "--", then the others. After a "--" in args nothing
// is a flag, and "-" alone never is one.
func Arrange[F Flag](args []string, flags []F) ([]string, error) {
	a := arranger[F]{known: map[string]F{}}
	for _, f := range flags {
		for _, name := range f.Names() {
			a.known[name] = f
		}
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			a.rest, args = append(a.rest, args...), nil
		case len(arg) < 2 || arg[0] != '-':
			a.rest = append(a.rest, arg)
		default:
			n, err := a.flag(arg, args)
			if err != nil {
				return nil, err
			}
			args = args[n:]
		}
	}
	return append(append(a.flags, "--"), a.rest...), nil
}

type arranger[F Flag] struct {
	known       map[string]F
	flags, rest []string
}

// flag takes in one argument that begins with a dash, and says how many of the
// arguments after it were its value.
func (a *arranger[F]) flag(arg string, after []string) (int, error) {
	name, value, hasValue := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
	f, ok := a.known[name]
	switch {
	case !ok && !strings.HasPrefix(arg, "--"):
		return a.cluster(arg, after)
	case !ok:
		return 0, &UnknownFlagError{Flag: "--" + name}
	case hasValue:
		a.add(f, "="+value)
	case !f.TakesValue():
		a.add(f, "")
	default:
		return a.value(f, arg, after)
	}
	return 0, nil
}

// cluster takes in short flags written together; the first that takes a value
// has the rest of the argument as such.
func (a *arranger[F]) cluster(arg string, after []string) (int, error) {
	for i, r := range arg[1:] {
		f, ok := a.known[string(r)]
		rest := arg[1+i+len(string(r)):]
		switch {
		case !ok:
			return 0, &UnknownFlagError{Flag: arg}
		case f.TakesValue() && rest != "":
			a.add(f, "="+rest)
			return 0, nil
		case f.TakesValue():
			return a.value(f, "-"+string(r), after)
		}
		a.add(f, "")
	}
	return 0, nil
}

// value gives f the argument after it.
func (a *arranger[F]) value(f F, arg string, after []string) (int, error) {
	if len(after) == 0 {
		return 0, &MissingValueError{Flag: arg}
	}
	a.add(f, "="+after[0])
	return 1, nil
}

func (a *arranger[F]) add(f F, suffix string) {
	a.flags = append(a.flags, "--"+f.Names()[0]+suffix)
}
