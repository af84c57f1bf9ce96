package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/mountinfo"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/fuse"
)

// fuseType is the file system type of a FUSE mount of ours in the mount table.
const fuseType = "fuse.vhdmount"

// endTimeout is how long a server that no longer listens may take to end.
const endTimeout = 5 * time.Second

func unmountVerb() *cli.Command {
	return &cli.Command{
		Name:      "unmount",
		Aliases:   []string{"umount"},
		Usage:     "take a disk away; returns when everything is flushed and the image closed",
		UsageText: "vhdmount unmount [--lazy] MOUNTPOINT|IMAGE",
		Description: "While a program has the disk open it is refused, with the program's name.\n" +
			"A mount whose server died is cleared.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "lazy", DisableDefaultText: true, Aliases: []string{"l"}, Usage: "hide the disk now, and close the image when its last user has closed the disk"},
		},
		Action: unmount,
	}
}

func unmount(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	dir, err := openRegistry()
	if err != nil {
		return err
	}
	u := unmounter{Context: c, dir: dir, name: args[0], lazy: c.Bool("lazy"), patience: endTimeout}
	record, err := u.find()
	if err != nil {
		return err
	}
	if record.Alive {
		return u.ask(record)
	}
	return u.clear(record)
}

// unmounter takes away the disk that the user called name.
type unmounter struct {
	*cli.Context
	dir      *registry.Dir
	name     string
	lazy     bool
	patience time.Duration // with a server that doesn't listen
}

// find is the mount that is meant; there must be one.
func (u unmounter) find() (registry.Record, error) {
	records, err := u.dir.Records()
	found := registry.Find(records, u.name)
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return registry.Record{}, fmt.Errorf("%s: mounted %d times: name one of %s", u.name, len(found), strings.Join(places(found), ", "))
	case err != nil:
		return registry.Record{}, err
	}
	return registry.Record{}, u.unknown()
}

func places(records []registry.Record) []string {
	var out []string
	for _, r := range records {
		out = append(out, place(r.Entry))
	}
	return out
}

// place is what to unmount an entry by.
func place(e registry.Entry) string {
	if e.Mountpoint != "" {
		return e.Mountpoint
	}
	return e.Disk
}

// unknown says why there is no such mount.
func (u unmounter) unknown() error {
	point, err := filepath.Abs(u.name)
	if err != nil {
		return err
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(point)); err == nil {
		point = filepath.Join(dir, filepath.Base(point))
	}
	mount, mounted, err := mountinfo.At(point)
	switch {
	case err != nil:
		return err
	case mounted && mount.Type == fuseType:
		return fmt.Errorf("%s: a disk of vhdmount (%s), but not among your mounts (%s): take it away with umount or fusermount3 -u",
			u.name, mount.Source, u.dir.Path())
	case mounted:
		return fmt.Errorf("%s: mounted, but not by vhdmount: it is %s (%s)", u.name, mount.Source, mount.Type)
	}
	return fmt.Errorf("%s: not mounted; vhdmount list shows what is", u.name)
}

// ask has the mount's server take the disk away, and waits for its end.
func (u unmounter) ask(record registry.Record) error {
	watch, err := u.dir.Watch(record.Name)
	if err != nil {
		return err
	}
	defer watch.Close()
	response, err := control.Call(u.Context.Context, u.dir.Socket(record.Name), control.Request{Op: control.Unmount, Lazy: u.lazy})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return u.awaitEnd(record.Entry, watch)
	case err != nil:
		return fmt.Errorf("%s: %w%s", u.name, err, seeLog(record.Entry))
	case response.Busy:
		who := strings.TrimPrefix(response.Error, record.Entry.Mountpoint+": ")
		if response.Pending {
			return fmt.Errorf("%s: %s; the image is closed when that has ended", u.name, who)
		}
		return fmt.Errorf("%s: %s%s", u.name, who, u.unlessLazy("; close it there, or hide it with --lazy"))
	case response.Pending:
		return u.pending(record.Entry, response)
	case response.Error != "" && !response.Closed:
		return fmt.Errorf("%s: still mounted: %s%s%s", u.name, response.Error,
			u.unlessLazy("; --lazy takes it away without what can't be flushed"), seeLog(record.Entry))
	}
	if err := watch.Wait(u.Context.Context); err != nil {
		return err
	}
	if response.Error != "" {
		return fmt.Errorf("%s: unmounted, but %s%s", u.name, response.Error, seeLog(record.Entry))
	}
	return nil
}

// awaitEnd waits for a server that doesn't listen: it is ending, as a rule. One
// whose socket somebody removed isn't.
func (u unmounter) awaitEnd(e registry.Entry, watch *registry.Watch) error {
	ctx, cancel := context.WithTimeout(u.Context.Context, u.patience)
	defer cancel()
	err := watch.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: its server doesn't listen: `kill %d` ends it in order", u.name, e.PID)
	}
	return err
}

// pending is a disk that is hidden, and that some program has open still.
func (u unmounter) pending(e registry.Entry, response control.Response) error {
	const closing = "the image is closed when the last program has closed the disk"
	if response.Error != "" {
		return fmt.Errorf("%s: hidden, but %s; %s%s", u.name, response.Error, closing, seeLog(e))
	}
	warn(u.App.ErrWriter, "%s: hidden; %s", u.name, closing)
	return nil
}

// unlessLazy is advice to one who has not asked for --lazy.
func (u unmounter) unlessLazy(advice string) string {
	if u.lazy {
		return ""
	}
	return advice
}

func seeLog(e registry.Entry) string {
	if e.Log == "" {
		return ""
	}
	return " (log: " + e.Log + ")"
}

// clear takes away what a dead server left.
func (u unmounter) clear(record registry.Record) error {
	if err := u.unmountStale(u.Context.Context, record.Entry); err != nil {
		return fmt.Errorf("%s: its server died: %w", u.name, err)
	}
	if err := u.dir.Clear(record.Name); err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	if record.Entry.MadeMountpoint {
		if err := u.dir.RemoveMountpoint(record.Entry.Mountpoint); err != nil {
			return err
		}
	}
	warn(u.App.ErrWriter, "%s: its server had died, and what it had not flushed is lost%s", u.name, seeLog(record.Entry))
	return nil
}

// unmountStale unmounts a FUSE mount without its server, if it is still in the
// mount table.
func (u unmounter) unmountStale(ctx context.Context, e registry.Entry) error {
	if e.Mountpoint == "" {
		return nil
	}
	mount, mounted, err := mountinfo.At(e.Mountpoint)
	if err != nil {
		return err
	}
	if !mounted || mount.Type != fuseType {
		return nil
	}
	err = fuse.Unmount(ctx, e.Mountpoint, u.lazy)
	if errors.Is(err, frontend.ErrBusy) {
		return fmt.Errorf("%w%s", err, u.unlessLazy("; close it there, or hide it with --lazy"))
	}
	return err
}
