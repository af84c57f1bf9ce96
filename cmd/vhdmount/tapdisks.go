package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// noParent is what stands for no disk in an open's ParentDevnum.
const noParent = 1<<32 - 1

func (t *tapTool) allocate(c *cli.Context) error {
	tap, err := t.take(c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, tap.Path)
	return err
}

// take allocates a minor, with the block device's node where --device says.
func (t *tapTool) take(c *cli.Context) (blktap.Tap, error) {
	tap, err := t.driver.Allocate()
	if err != nil || !c.IsSet("device") {
		return tap, err
	}
	name := c.String("device")
	if err := makeBlockNode(name, tap); err != nil {
		return tap, errors.Join(err, t.driver.Free(tap))
	}
	tap.Path = name
	return tap, t.driver.Hide(tap)
}

// makeBlockNode makes the block device's node under another name. Another
// block device's node in its place goes, as with tap-ctl; nothing else does.
func makeBlockNode(name string, tap blktap.Tap) error {
	var st unix.Stat_t
	err := unix.Lstat(name, &st)
	switch {
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFBLK:
		return &fs.PathError{Op: "mknod", Path: name, Err: unix.EEXIST}
	case err == nil:
		err = unix.Unlink(name)
	case errors.Is(err, unix.ENOENT):
		err = nil
	}
	if err == nil {
		err = unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(uint32(tap.DeviceMajor), uint32(tap.Minor))))
	}
	if err != nil {
		return &fs.PathError{Op: "mknod", Path: name, Err: err}
	}
	return nil
}

func (t *tapTool) free(c *cli.Context) error {
	minor, err := minorOf(c, "minor")
	if err != nil {
		return err
	}
	return t.driver.Free(blktap.Tap{Minor: int(minor)})
}

func (t *tapTool) attach(c *cli.Context) error {
	pid, minor, err := target(c)
	if err != nil {
		return err
	}
	return t.dir.Attach(c.Context, pid, minor)
}

func (t *tapTool) detach(c *cli.Context) error {
	pid, minor, err := target(c)
	if err != nil {
		return err
	}
	return t.dir.Detach(c.Context, pid, minor)
}

// onDisk does something to the disk that -p and -m mean, within -t.
func onDisk(c *cli.Context, do func(ctx context.Context, pid int, minor uint16) error) error {
	pid, minor, err := target(c)
	if err != nil {
		return err
	}
	ctx, cancel, err := within(c)
	if err != nil {
		return err
	}
	defer cancel()
	return do(ctx, pid, minor)
}

func (t *tapTool) close(c *cli.Context) error {
	return onDisk(c, func(ctx context.Context, pid int, minor uint16) error {
		return t.dir.Close(ctx, pid, minor, c.Bool("force"))
	})
}

func (t *tapTool) pause(c *cli.Context) error { return onDisk(c, t.dir.Pause) }

func (t *tapTool) destroy(c *cli.Context) error { return onDisk(c, t.destroyDisk) }

func (t *tapTool) destroyDisk(ctx context.Context, pid int, minor uint16) error {
	if err := t.dir.Close(ctx, pid, minor, false); err != nil {
		return err
	}
	if err := t.dir.Detach(ctx, pid, minor); err != nil {
		return err
	}
	err := t.driver.Free(blktap.Tap{Minor: int(minor)})
	if errors.Is(err, blktap.ErrNoMinor) {
		return nil // a mount frees its minor itself
	}
	return err
}

func (t *tapTool) open(c *cli.Context) error {
	pid, minor, err := target(c)
	if err != nil {
		return err
	}
	request, err := openRequest(c)
	if err != nil {
		return err
	}
	return t.openOn(c, pid, minor, request)
}

func (t *tapTool) openOn(c *cli.Context, pid int, minor uint16, request tapctl.OpenRequest) (err error) {
	if request.Params.Layout, err = t.layout(c, pid, minor); err != nil {
		return err
	}
	_, err = t.dir.Open(c.Context, pid, minor, request)
	return err
}

func (t *tapTool) unpause(c *cli.Context) error {
	pid, minor, err := target(c)
	if err != nil {
		return err
	}
	var request tapctl.OpenRequest
	request.LogPath = c.String("log")
	if request.Params.Path, err = imageName(c, "args"); err != nil {
		return err
	}
	if request.Params.Secondary, err = imageName(c, "secondary"); err != nil {
		return err
	}
	if request.Params.Layout, err = t.layout(c, pid, minor); err != nil {
		return err
	}
	return t.dir.Unpause(c.Context, pid, minor, request)
}

// create does what is between an image and its block device, or nothing.
func (t *tapTool) create(c *cli.Context) error {
	request, err := openRequest(c)
	if err != nil {
		return err
	}
	tap, err := t.take(c)
	if err != nil {
		return err
	}
	if err := t.serve(c, uint16(tap.Minor), request); err != nil {
		return errors.Join(err, t.driver.Free(tap))
	}
	_, err = fmt.Fprintln(c.App.Writer, tap.Path)
	return err
}

// serve has a new tapdisk serve an image on a minor. On failure it ends the
// tapdisk, which has nothing else to serve.
func (t *tapTool) serve(c *cli.Context, minor uint16, request tapctl.OpenRequest) error {
	pid, err := t.spawn(c.Context)
	if err != nil {
		return err
	}
	if err := t.dir.Attach(c.Context, pid, minor); err != nil {
		return errors.Join(err, unix.Kill(pid, unix.SIGTERM))
	}
	if err := t.openOn(c, pid, minor, request); err != nil {
		return errors.Join(err, t.dir.Detach(c.Context, pid, minor))
	}
	return nil
}

// openRequest is what an open's flags ask for.
func openRequest(c *cli.Context) (r tapctl.OpenRequest, err error) {
	p := &r.Params
	if p.Path, err = imageName(c, "args"); err != nil {
		return r, err
	}
	if p.Path == "" {
		return r, tapUsagef(c.Command.Name, "--args is missing: %s", c.Command.UsageText)
	}
	if p.Secondary, err = imageName(c, "secondary"); err != nil {
		return r, err
	}
	for flag, bit := range map[string]tapctl.Flags{
		"read-only": tapctl.FlagReadOnly, "no-direct": tapctl.FlagNoODirect, "cache": tapctl.FlagAddLCache, "standby": tapctl.FlagStandby,
	} {
		if c.Bool(flag) {
			p.Flags |= bit
		}
	}
	p.ParentDevnum = noParent
	if c.IsSet("parent") {
		minor, err := minorOf(c, "parent")
		if err != nil {
			return r, err
		}
		p.Flags, p.ParentDevnum = p.Flags|tapctl.FlagReuseParent, uint32(minor)
	}
	if c.IsSet("request-timeout") {
		n, err := numberOf(c, "request-timeout", 0, 1<<16-1)
		if err != nil {
			return r, err
		}
		p.Timeout = uint16(n)
	}
	r.LogPath = c.String("log")
	if c.Bool("encrypted") {
		r.Key, err = readKey(c)
	}
	return r, err
}

// imageName is the image that a flag names, as TYPE:PATH. A file's name is
// made absolute: a tapdisk works in another directory.
func imageName(c *cli.Context, flag string) (string, error) {
	text := c.String(flag)
	driver, name, ok := strings.Cut(text, ":")
	switch {
	case !c.IsSet(flag):
		return "", nil
	case !ok || driver == "" || name == "":
		return "", tapUsagef(c.Command.Name, "--%s %q: an image is named TYPE:PATH, as in vhd:/disk.vhd", flag, text)
	case driver != "vhd" && driver != "aio":
		return text, nil
	}
	name, err := filepath.Abs(name)
	return driver + ":" + name, err
}

// readKey reads the key of an encrypted image.
func readKey(c *cli.Context) ([]byte, error) {
	key, err := io.ReadAll(io.LimitReader(c.App.Reader, 65))
	if err != nil {
		return nil, fmt.Errorf("key: standard input: %w", err)
	}
	if len(key) != 32 && len(key) != 64 {
		return nil, tapUsagef(c.Command.Name, "the key on standard input has to have 32 or 64 bytes (256 or 512 bits), not %d", len(key))
	}
	return key, nil
}

// layout is the layout of the messages that the tapdisk reads.
func (t *tapTool) layout(c *cli.Context, pid int, minor uint16) (tapctl.Layout, error) {
	switch text := c.String("layout"); text {
	case "2010s":
		return tapctl.Layout2010s, nil
	case "2020s":
		return tapctl.Layout2020s, nil
	case "auto":
		return t.dir.Layout(c.Context, pid, minor)
	default:
		return 0, tapUsagef(c.Command.Name, "--layout %q is none of auto, 2010s, 2020s", text)
	}
}

func (t *tapTool) stats(c *cli.Context) error {
	pid, minor, err := target(c)
	if err != nil {
		return err
	}
	text, err := t.dir.Stats(c.Context, pid, minor)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s\n", text)
	return err
}

func (t *tapTool) spawnVerb(c *cli.Context) error {
	pid, err := t.spawn(c.Context)
	if err != nil {
		return err
	}
	form := "%d\n"
	if t.terminal() {
		form = "tapdisk spawned with pid %d\n"
	}
	_, err = fmt.Fprintf(c.App.Writer, form, pid)
	return err
}
