package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/argv"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/size"
)

const description = `Sizes are bytes, or a number with K, M, G or T in 1024s: 512, 64M, 10G, 1.5T.
Flags may stand before or after a verb's arguments.

Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 check found damage.`

// newApp is the command line as a whole. Nothing in it prints an error or
// ends the process: that is for run.
func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:        "vhdmount",
		Usage:       "show the disk inside a VHD image as a file",
		UsageText:   "vhdmount VERB [flags] [arguments]\nvhdmount help VERB",
		Description: description,
		Writer:      stdout,
		ErrWriter:   stderr,
		HideVersion: true, // the library's own flag takes -v and prints "version version"
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "version", DisableDefaultText: true, Usage: "print the version and the commit it was built from"},
			cli.HelpFlag, // which the library adds only where it has the help verb to itself
		},
		Commands: []*cli.Command{
			mountVerb(), unmountVerb(), listVerb(), infoVerb(), mapVerb(), createVerb(), snapshotVerb(), checkVerb(),
			tapVerb(), completionVerb(), helpVerb(),
		},
		Action:                    rootAction,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true, // file names may hold commas
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usageError,
	}
	for _, verb := range app.Commands {
		verb.HideHelpCommand = true
		verb.OnUsageError = usageError
	}
	return app
}

// runApp runs app with the arguments after the program's name, brought into
// the order that the library reads.
func runApp(app *cli.App, args []string) error {
	arranged, err := arrange(app, args)
	if err != nil {
		return err
	}
	return app.Run(append([]string{app.Name}, arranged...))
}

func arrange(app *cli.App, args []string) ([]string, error) {
	switch verb := app.Command(first(args)); {
	case verb != nil && len(verb.Subcommands) > 0:
		return arrangeTap(verb, args[1:])
	case verb != nil:
		arranged, err := argv.Arrange(args[1:], flagsOf(verb.Flags))
		if err != nil {
			return nil, explainArgv(err, verb.Name+": ", "vhdmount help "+verb.Name, verb.Flags)
		}
		return append([]string{verb.Name}, helpAlone(arranged)...), nil
	case strings.HasPrefix(first(args), "-"):
		arranged, err := argv.Arrange(args, flagsOf(app.Flags))
		if err != nil {
			return nil, explainArgv(err, "", "vhdmount help", app.Flags)
		}
		return arranged, nil
	}
	return args[:min(1, len(args))], nil // no verb, whatever follows
}

// helpAlone is a verb's arranged arguments, or --help alone if it is among its
// flags: the library takes an argument beside it for a topic.
func helpAlone(arranged []string) []string {
	if end := slices.Index(arranged, "--"); slices.Contains(arranged[:end], "--help") {
		return []string{"--help"}
	}
	return arranged
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// flagsOf is flags with --help, which the library adds later.
func flagsOf(flags []cli.Flag) []cli.DocGenerationFlag {
	var out []cli.DocGenerationFlag
	for _, f := range flags {
		out = append(out, f.(cli.DocGenerationFlag)) // all of the library's own are
	}
	return append(out, cli.HelpFlag.(cli.DocGenerationFlag))
}

// explainArgv makes a usage error of what argv found, with the flag that may
// have been meant; prefix says where, help where to read about it.
func explainArgv(err error, prefix, help string, flags []cli.Flag) error {
	hint := ""
	var unknown *argv.UnknownFlagError
	if errors.As(err, &unknown) {
		var names []string
		for _, f := range flagsOf(flags) {
			names = append(names, spelled(f)...)
		}
		if meant, ok := argv.Closest(unknown.Flag, names); ok {
			hint = fmt.Sprintf(" (did you mean %s?)", meant)
		}
	}
	return exitcode.Usagef("%s%w%s; see %s", prefix, err, hint, help)
}

// usageError takes the library's word for what is wrong, and not its habit of
// printing the whole help.
func usageError(c *cli.Context, err error, _ bool) error {
	return exitcode.Usagef("%s: %w", c.Command.Name, err)
}

// rootAction is what happens without a known verb. Without any argument that
// is the help, as with git: nothing was asked, nothing failed.
func rootAction(c *cli.Context) error {
	switch {
	case c.Bool("version"):
		_, err := fmt.Fprintln(c.App.Writer, versionLine())
		return err
	case c.Args().Present():
		return unknownVerb(c.App, c.Args().First())
	}
	return cli.ShowAppHelp(c)
}

func unknownVerb(app *cli.App, name string) error {
	hint := ""
	if meant, ok := argv.Closest(name, strings.Fields(verbNames(app))); ok {
		hint = fmt.Sprintf(" (did you mean %s?)", meant)
	}
	return exitcode.Usagef("unknown verb %q%s; see vhdmount help", name, hint)
}

func helpVerb() *cli.Command {
	return &cli.Command{
		Name:      "help",
		Usage:     "list the verbs, or explain one",
		UsageText: "vhdmount help [VERB]",
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 0, 1)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return cli.ShowAppHelp(c)
			}
			verb := c.App.Command(args[0])
			if verb == nil {
				return unknownVerb(c.App, args[0])
			}
			if len(verb.Subcommands) > 0 {
				return c.App.Run([]string{c.App.Name, verb.Name, "--help"}) // which lists them, as ShowCommandHelp doesn't
			}
			return cli.ShowCommandHelp(c.Lineage()[1], verb.Name)
		},
	}
}

// arguments is the verb's arguments, of which there must be from least to most.
func arguments(c *cli.Context, least, most int) ([]string, error) {
	args := c.Args().Slice()
	switch {
	case len(args) < least:
		return nil, exitcode.Usagef("%s: an argument is missing: %s", c.Command.Name, c.Command.UsageText)
	case len(args) > most:
		return nil, exitcode.Usagef("%s: unexpected argument %q: %s", c.Command.Name, args[most], c.Command.UsageText)
	}
	for _, arg := range args {
		if arg == "" {
			return nil, exitcode.Usagef("%s: an argument is empty", c.Command.Name)
		}
	}
	return args, nil
}

// diskSize reads the size of a disk, a whole number of sectors.
func diskSize(verb, text string) (int64, error) {
	n, err := size.Parse(text)
	switch {
	case err != nil:
		return 0, exitcode.Usagef("%s: size %w", verb, err)
	case n <= 0 || n%512 != 0:
		return 0, exitcode.Usagef("%s: size %q: a disk has a positive multiple of 512 bytes", verb, text)
	}
	return n, nil
}

// The bounds of --block-size, in bytes. The format and the engine know smaller
// blocks, down to a sector. qemu, for one, takes the sector bitmap of a block that
// has fewer than eight for empty, and reads each block from its bitmap on.
const (
	minBlockSize = 4 << 10
	maxBlockSize = 256 << 20
)

// blockSize reads the value of --block-size; 0 where it isn't given.
func blockSize(c *cli.Context) (int64, error) {
	text := c.String("block-size")
	if text == "" {
		return 0, nil
	}
	n, err := size.Parse(text)
	switch {
	case err != nil:
		return 0, exitcode.Usagef("%s: --block-size %w", c.Command.Name, err)
	case n <= 0 || n > maxBlockSize || n&(n-1) != 0:
		return 0, exitcode.Usagef("%s: --block-size %q: a block has a power of two of bytes, from 4K to 256M", c.Command.Name, text)
	case n < minBlockSize:
		return 0, exitcode.Usagef("%s: --block-size %q: a block has from 4K to 256M: other programs, qemu among them, read an image of smaller ones wrong", c.Command.Name, text)
	}
	return n, nil
}
