package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/mountinfo"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/fuse"
)

// endTimeout is how long a server that no longer listens may take to end.
const endTimeout = 5 * time.Second

func unmountVerb() *cli.Command {
	return &cli.Command{
		Name:      "unmount",
		Aliases:   []string{"umount"},
		Usage:     "take a disk away; returns when everything is flushed and the image closed",
		UsageText: "vhdmount unmount [--lazy] MOUNTPOINT|DEVICE|IMAGE",
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
	u := unmounter{Context: c, dir: dir, driver: blktap.System(), name: args[0], lazy: c.Bool("lazy"), patience: endTimeout}
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
	driver   blktap.Driver
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
	return u.unknown()
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

// unknown says why there is no such mount, unless it is one whose server died
// before it was entered.
func (u unmounter) unknown() (registry.Record, error) {
	none := registry.Record{}
	point, _, err := mountinfo.Resolve(u.name, mountinfo.Ours)
	if err != nil {
		return none, err
	}
	mount, mounted, err := mountinfo.At(point)
	dead := false
	if mounted && mount.Type == mountinfo.Ours {
		dead, _ = disconnected(point) // one that doesn't answer lives, as far as can be told
	}
	switch {
	case err != nil:
		return none, err
	case dead:
		return registry.Record{Entry: registry.Entry{Mountpoint: point, MadeMountpoint: true}}, nil
	case mounted && mount.Type == mountinfo.Ours:
		return none, fmt.Errorf("%s: a disk of vhdmount (%s), but not among your mounts (%s): take it away with umount or fusermount3 -u",
			u.name, mount.Source, u.dir.Path())
	case mounted:
		return none, fmt.Errorf("%s: mounted, but not by vhdmount: it is %s (%s)", u.name, mount.Source, mount.Type)
	}
	return none, fmt.Errorf("%s: not mounted; vhdmount list shows what is", u.name)
}

// answerTimeout is how long a mount that nobody knows may take to say whether
// its server lives.
const answerTimeout = 2 * time.Second

// errSilent is a mount that has not said in time whether its server lives.
var errSilent = errors.New("still mounted, and its server neither answers nor is gone: try again")

// disconnected tells whether the server of the mount at point is dead. One that
// does not answer within answerTimeout is errSilent. ECONNABORTED is one that
// died before it was handed the question.
func disconnected(point string) (bool, error) {
	answer := make(chan error, 1)
	go func() { // ends with the answer or the process
		var st unix.Statfs_t
		answer <- unix.Statfs(point, &st)
	}()
	select {
	case err := <-answer:
		return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED), nil
	case <-time.After(answerTimeout):
		return false, fmt.Errorf("%s: %w", point, errSilent)
	}
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
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, control.ErrNoAnswer):
		return u.awaitEnd(record, watch)
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
	// It may have died when the image was closed, and its traces not gone.
	if left, err := u.left(record); left {
		if err := u.sweep(record); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if response.Error != "" {
		return fmt.Errorf("%s: unmounted, but %s%s", u.name, response.Error, seeLog(record.Entry))
	}
	return nil
}

// awaitEnd waits for a server that doesn't listen: it is ending, as a rule. One
// whose socket somebody removed isn't, and one that died can't. The first has
// taken its entry away when its lock is free; a dead one has left it.
func (u unmounter) awaitEnd(record registry.Record, watch *registry.Watch) error {
	ctx, cancel := context.WithTimeout(u.Context.Context, u.patience)
	defer cancel()
	err := watch.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: its server doesn't listen: `kill %d` ends it in order", u.name, record.Entry.PID)
	}
	if err != nil {
		return err
	}
	left, err := u.left(record)
	if left {
		return u.clear(record)
	}
	return err
}

// left tells whether a server has ended and not taken its entry away.
func (u unmounter) left(record registry.Record) (bool, error) {
	r, err := u.dir.Record(record.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && !r.Alive, err
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

// clear takes away what a dead server left, and says that it died.
func (u unmounter) clear(record registry.Record) error {
	if err := u.sweep(record); err != nil {
		return err
	}
	warn(u.App.ErrWriter, "%s: its server had died, and what it had not flushed is lost%s", u.name, seeLog(record.Entry))
	return nil
}

// sweep takes away what a server that has ended may have left: nothing, as a
// rule.
func (u unmounter) sweep(record registry.Record) error {
	err := u.unmountStale(u.Context.Context, record.Entry)
	if err == nil {
		err = u.freeStale(record.Entry)
	}
	if err != nil {
		return fmt.Errorf("%s: its server died: %w", u.name, err)
	}
	if err := u.dir.Clear(record.Name); err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	if record.Entry.MadeMountpoint {
		return u.dir.RemoveMountpoint(record.Entry.Mountpoint)
	}
	return nil
}

// freeStale frees the minor of a block device whose server died. One that was
// freed meanwhile, with the module or without it, is no error; one that another
// process serves by now is not ours to free.
func (u unmounter) freeStale(e registry.Entry) error {
	if e.Minor == nil {
		return nil
	}
	tap, err := u.driver.Find(*e.Minor)
	if err == nil && madeAfter(tap.Path, e.Since) {
		err = blktap.ErrMinorInUse
	}
	if err == nil {
		err = u.unserved(tap)
	}
	if err == nil {
		err = u.driver.Free(tap)
	}
	switch {
	case errors.Is(err, blktap.ErrNoModule), errors.Is(err, blktap.ErrMinorInUse):
		return nil
	case errors.Is(err, blktap.ErrNoMinor):
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: %w: %s", e.Disk, frontend.ErrBusy, strings.Join(u.driver.Holders(tap), ", "))
	}
	return err
}

// madeAfter tells whether a node was made since: its minor was freed and is
// somebody else's. One that is gone, or doesn't know its age, wasn't.
func madeAfter(path string, since time.Time) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &st)
	return err == nil && st.Mask&unix.STATX_BTIME != 0 && time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)).After(since)
}

// unserved tells by an error whether some process serves a minor.
func (u unmounter) unserved(tap blktap.Tap) error {
	served, err := u.driver.Served(tap)
	if err == nil && served {
		err = blktap.ErrMinorInUse
	}
	return err
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
	if !mounted || mount.Type != mountinfo.Ours {
		return nil // gone, or another's by now
	}
	if dead, err := disconnected(e.Mountpoint); !dead {
		return err // nil: another's by now, which lives
	}
	err = fuse.Unmount(ctx, e.Mountpoint, u.lazy)
	if errors.Is(err, frontend.ErrBusy) {
		return fmt.Errorf("%w%s", err, u.unlessLazy("; close it there, or hide it with --lazy"))
	}
	return err
}
