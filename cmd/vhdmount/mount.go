package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/daemon"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/mountopts"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

func mountVerb() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "show an image's disk as a file or a block device",
		UsageText: "vhdmount mount [flags] IMAGE [MOUNTPOINT]",
		Description: "In MOUNTPOINT, an empty directory, disk.raw is the disk, p1.raw and so on its partitions; a\n" +
			"MOUNTPOINT that is a regular file becomes the disk itself. Without one, a directory is made in the\n" +
			"runtime directory. Where the kernel has blktap, and neither a mount point nor an option for files is\n" +
			"given, the disk is a block device, /dev/xen/blktap-2/tapdevN. Prints the disk's path, and returns\n" +
			"when, and only when, it is there.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "frontend", Value: frontendAuto, Usage: "`HOW` the disk is shown: auto, fuse or blktap"},
			&cli.BoolFlag{Name: "read-only", DisableDefaultText: true, Aliases: []string{"r"}, Usage: "refuse writes, and share the image with other readers"},
			&cli.BoolFlag{Name: "foreground", DisableDefaultText: true, Aliases: []string{"f"}, Usage: "stay in the foreground, and log to standard error"},
			&cli.StringSliceFlag{Name: "o", Usage: "mount(8) `OPTIONS`: ro, rw, allow_other, allow_root, uid=, gid=, umask=, fsname=, default_permissions"},
			&cli.StringFlag{Name: "durability", Value: vhd.Writeback.String(), Usage: "`WHEN` writes are safe: writeback, after a flush; writethrough, at once; unsafe, after unmount"},
			&cli.BoolFlag{Name: "direct-io", DisableDefaultText: true, Usage: "read and write the image past the page cache, as a tapdisk does: no memory is kept for it"},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "`LEVEL` of what is logged: debug, info, warn or error"},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT` of the log: text or json"},
		}, chainFlags()...),
		Action: mount,
	}
}

// mountPlan is what `mount` was asked for, checked as far as it can be without
// looking at any file.
type mountPlan struct {
	image      string
	mountpoint string // empty: to be made
	frontend   string
	foreground bool
	open       vhd.Options
	direct     bool // past the page cache
	options    mountopts.Options
	logLevel   slog.Level
	logFormat  string
}

func mount(c *cli.Context) error {
	plan, err := planMount(c)
	if err != nil {
		return err
	}
	if child, ok := daemon.Child(); ok {
		return mountInBackground(c, plan, child)
	}
	if plan.foreground {
		return serveDisk(plan, &foreground{stdout: c.App.Writer, stderr: c.App.ErrWriter})
	}
	ctx, stop := signal.NotifyContext(c.Context, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	return startInBackground(ctx, c)
}

// startInBackground starts this very command again in the background, and
// prints what it says when the disk is there.
func startInBackground(ctx context.Context, c *cli.Context) error {
	path, err := daemon.Start(ctx, os.Args[1:])
	var failed *daemon.FailedError
	switch {
	case errors.As(err, &failed):
		return &exitcode.Error{Code: failed.Code, Err: finished{failed}}
	case err != nil:
		return fmt.Errorf("mount: %w", err)
	}
	_, err = fmt.Fprintln(c.App.Writer, path)
	return err
}

// finished is an error whose text is a message already.
type finished struct{ error }

func (f finished) Unwrap() error { return f.error }

// mountInBackground serves the disk in the process that startInBackground
// started. A failure before the disk is there goes to that one.
func mountInBackground(c *cli.Context, plan mountPlan, child *daemon.Readiness) error {
	b := &background{child: child, stderr: c.App.ErrWriter}
	err := serveDisk(plan, b)
	if err == nil || b.ready {
		return err // to the log, which is standard error by now
	}
	code := exitcode.Of(err)
	if failErr := child.Fail(code, message(err)); failErr != nil {
		return err // nobody waits: say it here
	}
	return &exitcode.Error{Code: code, Err: errReported}
}

func planMount(c *cli.Context) (plan mountPlan, err error) {
	args, err := arguments(c, 1, 2)
	if err != nil {
		return plan, err
	}
	plan.image = args[0]
	if len(args) > 1 {
		plan.mountpoint = args[1]
	}
	plan.foreground = c.Bool("foreground")
	if plan.open, err = chainOptions(c); err != nil {
		return plan, err
	}
	if plan.open.Durability, err = vhd.ParseDurability(c.String("durability")); err != nil {
		return plan, exitcode.Usagef("mount: --%w", err)
	}
	if plan.options, err = mountopts.Parse(c.StringSlice("o")...); err != nil {
		return plan, exitcode.Usagef("mount: -o: %w", err)
	}
	plan.direct = c.Bool("direct-io")
	plan.open.ReadOnly = c.Bool("read-only") || plan.options.ReadOnly
	plan.frontend, err = chooseFrontend(c.String("frontend"), plan.mountpoint, plan.options, blktap.Available)
	if err != nil {
		return plan, err
	}
	return plan, planLog(c, &plan)
}

func planLog(c *cli.Context, plan *mountPlan) error {
	switch text := c.String("log-level"); text {
	case "debug", "info", "warn", "error":
		if err := plan.logLevel.UnmarshalText([]byte(text)); err != nil {
			return err
		}
	default:
		return exitcode.Usagef("mount: --log-level %q is none of debug, info, warn, error", text)
	}
	plan.logFormat = c.String("log-format")
	if plan.logFormat != "text" && plan.logFormat != "json" {
		return exitcode.Usagef("mount: --log-format %q is neither text nor json", plan.logFormat)
	}
	return nil
}
