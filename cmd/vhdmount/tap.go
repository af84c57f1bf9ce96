package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/argv"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

const tapDescription = `The verbs, flags, output and exit codes of Xen's tap-ctl, for the tapdisks of
this program and for Xen's own. A failure's exit code is its errno: 22 for
wrong usage.

The life of a disk:
   vhdmount tap allocate                         prints /dev/xen/blktap-2/tapdev0
   vhdmount tap spawn                            prints the new tapdisk's pid
   vhdmount tap attach -p PID -m 0
   vhdmount tap open -p PID -m 0 -a vhd:/disk.vhd
   vhdmount tap close -p PID -m 0
   vhdmount tap detach -p PID -m 0               the tapdisk ends
   vhdmount tap free -m 0`

// tapTool is what the verbs of tap work on.
type tapTool struct {
	dir    tapctl.Dir
	driver blktap.Driver
	// proc and sys are where these file systems are mounted.
	proc, sys string
	// available tells whether there is a module, as blktap.Available does.
	available func() error
	// terminal tells whether standard output is one: two verbs then speak to
	// people, as tap-ctl's do.
	terminal func() bool
	// spawn starts a tapdisk and returns its number.
	spawn func(ctx context.Context) (pid int, err error)
	// confined has a tapdisk give up what it needs no longer once it listens.
	confined bool
}

// tapVerb is the verb on the running system.
func tapVerb() *cli.Command {
	dir := tapctl.Locate(os.Getenv)
	return (&tapTool{
		confined: true,
		dir:      dir, driver: blktap.System(), available: blktap.Available, proc: "/proc", sys: "/sys",
		terminal: func() bool { return term.IsTerminal(int(os.Stdout.Fd())) },
		spawn:    (&spawner{getenv: os.Getenv}).spawn,
	}).verb()
}

func (t *tapTool) verb() *cli.Command {
	return &cli.Command{
		Name:        "tap",
		Usage:       "drive tapdisks, as Xen's tap-ctl does",
		UsageText:   "vhdmount tap VERB [flags]\nvhdmount tap VERB --help",
		Description: tapDescription,
		Action:      func(c *cli.Context) error { return cli.ShowSubcommandHelp(c) },
		Subcommands: []*cli.Command{
			t.verbOf("list", "[-p PID] [-m MINOR] [-t TYPE] [-f FILE] [--json]", "list tapdisks and their disks", t.list,
				pidFlag(), minorFlag(), valueFlag("driver", "t", "only disks of this `TYPE`: vhd, aio"), valueFlag("file", "f", "only the disk of this image `FILE`"), jsonFlag()),
			t.verbOf("allocate", "[-d DEVICE]", "take a minor, make its nodes, and print the block device", t.allocate, deviceFlag()),
			t.verbOf("free", "-m MINOR", "give a minor back", t.free, minorFlag()),
			t.verbOf("create", "-a TYPE:PATH [-d DEVICE] [flags]", "allocate, spawn, attach and open in one", t.create, append(openFlags(), deviceFlag())...),
			t.verbOf("destroy", "-p PID -m MINOR [-t SECONDS]", "close, detach and free in one", t.destroy, pidFlag(), minorFlag(), timeoutFlag()),
			t.verbOf("spawn", "", "start a tapdisk and print its pid; that of $TAPDISK if that is set", t.spawnVerb),
			t.verbOf("attach", "-p PID -m MINOR", "give a minor to a tapdisk", t.attach, pidFlag(), minorFlag()),
			t.verbOf("detach", "-p PID -m MINOR", "take a minor from its tapdisk, which ends with its last", t.detach, pidFlag(), minorFlag()),
			t.verbOf("open", "-p PID -m MINOR -a TYPE:PATH [flags]", "open an image and make its block device", t.open,
				append(openFlags(), pidFlag(), minorFlag(), boolFlag("encrypted", "E", "read the image's key, 32 or 64 bytes, from standard input"))...),
			t.verbOf("close", "-p PID -m MINOR [-f] [-t SECONDS]", "take the block device away and close the image", t.close,
				pidFlag(), minorFlag(), boolFlag("force", "f", "don't wait for a guest that is gone (Xen's tapdisk; this one never does)"), timeoutFlag()),
			t.verbOf("pause", "-p PID -m MINOR [-t SECONDS]", "drain, flush and close the image; requests wait", t.pause, pidFlag(), minorFlag(), timeoutFlag()),
			t.verbOf("unpause", "-p PID -m MINOR [-a TYPE:PATH] [-2 TYPE:PATH] [-c FILE]", "open the image afresh, or another, and go on", t.unpause,
				pidFlag(), minorFlag(), imageFlag(), secondaryFlag(), valueFlag("log", "c", "log dirty blocks to `FILE`"), layoutFlag()),
			t.verbOf("stats", "-p PID -m MINOR", "print a disk's figures as JSON", t.stats, pidFlag(), minorFlag()),
			t.verbOf("major", "", "print the block devices' major number", t.major, boolFlag("block", "b", "that of the block devices, which it is anyway")),
			t.verbOf("minors", "[-p PID]", "print the minors that are allocated, or that a tapdisk has", t.minors, pidFlag()),
			t.verbOf("check", "", "tell whether the blktap module is loaded", t.check),
			t.tapdiskVerb(),
		},
	}
}

// verbOf is one of the verbs. Its errors have tap-ctl's exit codes.
func (t *tapTool) verbOf(name, flags, usage string, action cli.ActionFunc, list ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, UsageText: strings.TrimSpace("vhdmount tap " + name + " " + flags), Flags: list,
		HideHelpCommand: true,
		OnUsageError:    func(c *cli.Context, err error, _ bool) error { return tapUsagef(c.Command.Name, "%w", err) },
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return tapUsagef(name, "unexpected argument %q: %s", c.Args().First(), c.Command.UsageText)
			}
			return tapError(action(c))
		},
	}
}

// tapUsagef is an error of how a verb was called, with tap-ctl's exit code.
func tapUsagef(name, format string, args ...any) error {
	return &exitcode.Error{Code: int(unix.EINVAL), Err: fmt.Errorf("tap "+name+": "+format, args...)}
}

// arrangeTap brings the arguments after "tap" into the order that the library
// reads.
func arrangeTap(tap *cli.Command, args []string) ([]string, error) {
	name := first(args)
	verb := tap.Command(name)
	switch {
	case name == "", name == "-h", name == "--help":
		return []string{tap.Name, "--help"}, nil
	case verb == nil:
		hint := ""
		if meant, ok := argv.Closest(name, namesOf(tap.VisibleCommands())); ok {
			hint = fmt.Sprintf(" (did you mean %s?)", meant)
		}
		return nil, &exitcode.Error{Code: int(unix.EINVAL), Err: fmt.Errorf("tap: unknown verb %q%s; see vhdmount tap --help", name, hint)}
	}
	arranged, err := argv.Arrange(args[1:], flagsOf(verb.Flags))
	if err != nil {
		return nil, &exitcode.Error{Code: int(unix.EINVAL), Err: explainArgv(err, "tap "+verb.Name+": ", "vhdmount tap "+verb.Name+" --help", verb.Flags)}
	}
	return append([]string{tap.Name, verb.Name}, helpAlone(arranged)...), nil
}

// Flags that several verbs have.

func valueFlag(name, short, usage string) cli.Flag {
	return &cli.StringFlag{Name: name, Aliases: []string{short}, Usage: usage}
}

func boolFlag(name, short, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Aliases: []string{short}, DisableDefaultText: true, Usage: usage}
}

func pidFlag() cli.Flag    { return valueFlag("pid", "p", "the tapdisk, by its `PID`") }
func minorFlag() cli.Flag  { return valueFlag("minor", "m", "the disk, by its `MINOR`") }
func deviceFlag() cli.Flag { return valueFlag("device", "d", "make the block device as `DEVICE`") }
func imageFlag() cli.Flag {
	return valueFlag("args", "a", "the image, as `TYPE:PATH`: vhd:PATH, or aio:PATH for a raw one")
}
func secondaryFlag() cli.Flag {
	return valueFlag("secondary", "2", "a second image `TYPE:PATH`, written to as well")
}
func timeoutFlag() cli.Flag { return valueFlag("timeout", "t", "give up after `SECONDS`") }

func layoutFlag() cli.Flag {
	return &cli.StringFlag{Name: "layout", Value: "auto", Usage: "`LAYOUT` of the messages that the tapdisk reads: auto, 2010s or 2020s"}
}

// openFlags are those of an open.
func openFlags() []cli.Flag {
	return []cli.Flag{
		imageFlag(),
		boolFlag("read-only", "R", "make a read-only disk"),
		boolFlag("no-direct", "D", "let the image go through the host's page cache"),
		valueFlag("parent", "e", "take the parents from the disk `MINOR` of the same tapdisk"),
		boolFlag("cache", "r", "keep what is read of the parents in the leaf"),
		secondaryFlag(),
		boolFlag("standby", "s", "write to the second image only once the first is out of space"),
		valueFlag("request-timeout", "t", "fail a request after `SECONDS` (Xen's tapdisk; this one waits for its disk)"),
		valueFlag("log", "C", "log dirty blocks to `FILE`"),
		layoutFlag(),
	}
}

// Values of flags.

// target is the tapdisk and the disk that a verb is about.
func target(c *cli.Context) (pid int, minor uint16, err error) {
	if pid, err = pidOf(c); err != nil {
		return 0, 0, err
	}
	minor, err = minorOf(c, "minor")
	return pid, minor, err
}

func pidOf(c *cli.Context) (int, error) {
	n, err := numberOf(c, "pid", 1, 1<<31-1)
	return int(n), err
}

// minorOf is the value of a flag that names a minor. One less than a cookie
// can hold is the last.
func minorOf(c *cli.Context, flag string) (uint16, error) {
	n, err := numberOf(c, flag, 0, int64(tapctl.AllMinors)-1)
	return uint16(n), err
}

// numberOf is the value of a flag that must be there.
func numberOf(c *cli.Context, flag string, least, most int64) (int64, error) {
	if !c.IsSet(flag) {
		return 0, tapUsagef(c.Command.Name, "--%s is missing: %s", flag, c.Command.UsageText)
	}
	n, err := strconv.ParseInt(c.String(flag), 10, 64)
	if err != nil || n < least || n > most {
		return 0, tapUsagef(c.Command.Name, "--%s %q: not a number from %d to %d", flag, c.String(flag), least, most)
	}
	return n, nil
}

// within is the verb's context, which ends after --timeout.
func within(c *cli.Context) (context.Context, context.CancelFunc, error) {
	if !c.IsSet("timeout") {
		return c.Context, func() {}, nil
	}
	n, err := numberOf(c, "timeout", 1, 1<<31-1)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context, time.Duration(n)*time.Second)
	return ctx, cancel, nil
}
