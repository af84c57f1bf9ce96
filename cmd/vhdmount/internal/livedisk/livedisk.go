// Package livedisk is an image that is open while others use its disk: behind
// a gate, with its background write-back. It can be paused, which closes the
// chain, and opened afresh under the same name or another, as a live snapshot
// does. It knows no frontend and no client.
package livedisk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/rawfile"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
)

// Options say what is opened, and how.
type Options struct {
	Path string
	// Raw is an image without a format: of VHD, FS and ReadOnly count.
	Raw bool
	// VHD is how the chain is opened. Its Parent counts for Path alone, not
	// for another image that Unpause opens.
	VHD vhd.Options
	// Direct opens it past the page cache: see storage.Direct.
	Direct bool
	// WritebackInterval is how old uncommitted metadata may grow. 0: until the
	// next flush.
	WritebackInterval time.Duration
	// BeforeGoingOn, if there is one, is told at the end of each pause which image
	// the disk goes on with, as an absolute path: the chain is open, and no request
	// goes on before it returns. Its error has the disk stay paused. Where the disk
	// can't go on with another image after all, it is told the one before.
	//
	// It runs in the disk's turn: it may call nothing that waits for that (Pause,
	// Unpause, StartWriteback, StopWriteback, Close), and a lock that it takes may
	// not be held by a caller of these, nor by one who waits for a request.
	BeforeGoingOn func(path string) error
}

// Disk is an image in use. Its methods are safe for concurrent use; close it
// with Close.
type Disk struct {
	options Options
	gate    *blockdev.Gate

	// turn lets one Pause, Unpause or Close run at a time. It is held across
	// I/O, taken before mu and before the locks of Options.BeforeGoingOn. It
	// guards files.
	turn  sync.Mutex
	files files

	// mu guards the fields below. It is a leaf.
	mu      sync.Mutex
	path    string
	chain   *chain // nil while paused and after Close
	closed  bool
	owner   Owner // of the pause
	owners  Owner // given out
	trouble error // what Trouble says; nil while chain isn't
	failed  error // a close that failed: the disk is read-only from then on
	lost    error // the first failure of a write-back that has ended
	flushed error // of the last flush that ended
}

// device is a disk that may turn read-only, and then tells why.
type device interface {
	blockdev.Device
	Err() error
}

// chain is what is open behind the gate.
type chain struct {
	device    device
	image     *vhd.Image       // nil for a raw image
	writeback *vhd.Writebacker // nil without one
	layers    []vhd.Layer      // of image, with absolute names
}

// Owner is who paused a disk, and may have it go on.
type Owner uint64

// ByMessage is whoever speaks tapdisk's protocol, and the kernel module.
const ByMessage Owner = 0

// ErrHeld is a disk that is paused by another.
var ErrHeld = errors.New("the disk is paused by another, for a snapshot perhaps: try again")

// Open opens an image and its chain. The errors are those of vhd.Open or
// rawfile.Open. Relative paths in o are those of the working directory now, also
// for Unpause.
func Open(o Options) (*Disk, error) {
	lasting, err := o.absolute()
	if err != nil {
		return nil, err
	}
	first := &Disk{options: o} // whose errors name the image as the caller did
	c, err := first.open(o.Path, nil, o.VHD.ReadOnly)
	if err != nil {
		return nil, err
	}
	return &Disk{options: lasting, path: lasting.Path, gate: blockdev.NewGate(c.device), chain: c}, nil
}

// absolute is o with paths that don't depend on the working directory.
func (o Options) absolute() (Options, error) {
	o.VHD.ParentDirs = slices.Clone(o.VHD.ParentDirs)
	paths := []*string{&o.Path}
	if o.VHD.Parent != "" {
		paths = append(paths, &o.VHD.Parent)
	}
	for i := range o.VHD.ParentDirs {
		paths = append(paths, &o.VHD.ParentDirs[i])
	}
	for _, p := range paths {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return o, fmt.Errorf("%s: %w", *p, err)
		}
		*p = abs
	}
	return o, nil
}

// open opens the chain of an image, with files in place of names that lead to
// them.
func (d *Disk) open(path string, files []*os.File, readOnly bool) (*chain, error) {
	o := d.options.VHD
	o.ReadOnly = readOnly
	if len(files) > 0 {
		o.FS = storage.Passed(storage.OS, files)
	}
	if d.options.Direct {
		o.FS = storage.Direct(cmp.Or(o.FS, storage.OS))
	}
	if d.options.Raw {
		dev, err := rawfile.Open(path, rawfile.Options{FS: o.FS, ReadOnly: o.ReadOnly})
		if err != nil {
			return nil, err
		}
		return &chain{device: dev}, nil
	}
	if path != d.options.Path {
		o.Parent = ""
	}
	img, err := vhd.Open(path, o)
	if err != nil {
		return nil, err
	}
	c := &chain{device: img, image: img, layers: img.Layers()}
	for i := range c.layers {
		if c.layers[i].Name, err = filepath.Abs(c.layers[i].Name); err != nil {
			return nil, errors.Join(err, img.Close())
		}
	}
	return c, nil
}

// start begins the write-back of a chain that is shown.
func (d *Disk) start(c *chain) {
	if c.image != nil && d.options.WritebackInterval > 0 {
		c.writeback = vhd.StartWriteback(writtenBack{c.image, d}, d.options.WritebackInterval)
	}
}

// StartWriteback begins to flush in the background. Call it once, when the
// disk is about to be shown; chains that are opened later do it by themselves.
func (d *Disk) StartWriteback() {
	d.turn.Lock()
	defer d.turn.Unlock()
	if c := d.current(); c != nil {
		d.start(c)
	}
}

// Device is the disk as a frontend shows it, whatever is open behind it.
func (d *Disk) Device() blockdev.Device { return shown{d.gate, d} }

// shown is the gate, with all its abilities, and a note of how flushes end.
type shown struct {
	*blockdev.Gate
	disk *Disk
}

var (
	_ blockdev.Discarder    = shown{}
	_ blockdev.ZeroWriter   = shown{}
	_ blockdev.NowaitReader = shown{}
	_ blockdev.NowaitWriter = shown{}
	_ blockdev.ExtentMapper = shown{}
	_ blockdev.RangeUsage   = shown{}
	_ blockdev.Usage        = shown{}
)

// Flush implements blockdev.Device.
func (s shown) Flush() error {
	err := s.Gate.Flush()
	s.disk.noteFlush(err)
	return err
}

// writtenBack is an image whose flushes in the background are noted as well.
type writtenBack struct {
	*vhd.Image
	disk *Disk
}

// Flush implements vhd.Flusher.
func (w writtenBack) Flush() error {
	err := w.Image.Flush()
	w.disk.noteFlush(err)
	return err
}

// noteFlush keeps how a flush ended.
func (d *Disk) noteFlush(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushed = err
}

// FlushError is why the last flush failed, asked for or in the background; nil
// if it didn't. Unlike Err it passes with the next one that succeeds.
func (d *Disk) FlushError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flushed
}

// Path is the image that is open, or was before the pause: an absolute path.
func (d *Disk) Path() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.path
}

// Image is the VHD that is open now: nil while the disk is paused, and for a
// raw image. It may be closed by a pause at any moment; its methods then
// answer blockdev.ErrClosed.
func (d *Disk) Image() *vhd.Image {
	if c := d.current(); c != nil {
		return c.image
	}
	return nil
}

// Warnings are what was odd at open: a line each.
func (d *Disk) Warnings() []string {
	if img := d.Image(); img != nil {
		return img.Warnings()
	}
	return nil
}

// Paused tells whether the disk is paused.
func (d *Disk) Paused() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chain == nil && !d.closed
}

// Trouble is why a disk is paused though nobody wishes it any more: the chain
// could not be opened again.
func (d *Disk) Trouble() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trouble
}

func (d *Disk) current() *chain {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chain
}

// NewOwner is an owner that no one else is.
func (d *Disk) NewOwner() Owner {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owners++
	return d.owners
}

// PausedBy tells whether the disk is paused, and owner's to unpause.
func (d *Disk) PausedBy(owner Owner) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chain == nil && !d.closed && d.owner == owner
}

// Pause makes new requests wait, waits for those under way, flushes, and
// closes the chain: its files are unlocked and may be changed by others until
// the owner's Unpause. It makes sure first that the chain can be opened again.
// When it fails the disk goes on; where it was closed and can't be opened again
// it is paused, and owner's: Trouble tells. One that owner has paused is
// blockdev.ErrPaused, one that another has paused ErrHeld.
func (d *Disk) Pause(ctx context.Context, owner Owner) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	c := d.current()
	if c == nil {
		return d.notOpen(owner)
	}
	if c.image != nil && d.options.VHD.FS == nil {
		if err := d.files.rehearse(c.layers, c.image.ReadOnly()); err != nil {
			return fmt.Errorf("it could not be opened again: %w", err)
		}
	}
	if err := d.gate.Pause(ctx); err != nil {
		d.files.forgetKept()
		return err
	}
	err := d.shut(c, owner)
	if err != nil {
		// A sync that failed is final: what the kernel has dropped it would
		// not write again.
		return errors.Join(err, d.reopen("", nil))
	}
	return nil
}

// notOpen is why there is no chain to pause.
func (d *Disk) notOpen(owner Owner) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return blockdev.ErrClosed
	case d.owner != owner:
		return ErrHeld
	}
	return blockdev.ErrPaused
}

// shut closes the chain behind a paused gate. The turn is held.
func (d *Disk) shut(c *chain, owner Owner) error {
	d.stopWriteback(c)
	err := c.device.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.chain, d.owner, d.failed, d.flushed = nil, owner, cmp.Or(d.failed, err), err
	return err
}

// stopWriteback ends the write-back of a chain and keeps what went wrong in it.
// The turn is held.
func (d *Disk) stopWriteback(c *chain) {
	if c.writeback == nil {
		return
	}
	err := c.writeback.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost == nil {
		d.lost = err
	}
}

// Unpause opens the chain of the image at path, which is absolute, or of the
// one that was open if path is empty, and lets the requests go on. passed are
// some of the chain's files that are open already, the caller's to close. When
// it fails the disk stays paused, and Unpause may be called again: with the image
// gone, say, of another size, or refused by Options.BeforeGoingOn. A disk that
// isn't paused is blockdev.ErrNotPaused, one that another has paused ErrHeld,
// unless it is paused only because it could not go on.
func (d *Disk) Unpause(ctx context.Context, owner Owner, path string, passed []*os.File) error {
	d.turn.Lock()
	defer d.turn.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.mayUnpause(owner); err != nil {
		return err
	}
	return d.reopen(path, passed)
}

func (d *Disk) mayUnpause(owner Owner) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return blockdev.ErrClosed
	case d.chain != nil:
		return blockdev.ErrNotPaused
	case d.owner != owner && d.trouble == nil:
		return ErrHeld
	}
	return nil
}

// reopen is Unpause; the turn is held, and the gate paused.
func (d *Disk) reopen(path string, passed []*os.File) error {
	if path == "" {
		path = d.Path()
	}
	c, err := d.open(path, d.files.all(passed), d.options.VHD.ReadOnly || d.closeError() != nil)
	if err == nil {
		if err = d.goOn(path, c); err != nil {
			err = errors.Join(err, c.device.Close())
		}
	}
	d.mu.Lock()
	d.trouble = err
	if err == nil {
		d.start(c)
		d.path, d.chain = path, c
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	d.files.forgetKept()
	d.files.remember(passed)
	return nil
}

// goOn lets the requests go on with c, the chain of the image at path, once
// Options.BeforeGoingOn has agreed. The turn is held.
func (d *Disk) goOn(path string, c *chain) error {
	before := d.options.BeforeGoingOn
	if before == nil {
		return d.gate.Resume(c.device)
	}
	err := before(path)
	if err == nil {
		err = d.gate.Resume(c.device)
	}
	if was := d.Path(); err != nil && path != was {
		err = errors.Join(err, before(was))
	}
	return err
}

// Flush brings everything acknowledged to stable storage. A paused disk is
// flushed.
func (d *Disk) Flush() error { return d.Device().Flush() }

// Err is why a disk that could be written to no longer can; else nil.
func (d *Disk) Err() error {
	c := d.current()
	if c == nil {
		return nil
	}
	if failed := d.closeError(); failed != nil {
		return fmt.Errorf("%w since it could not be closed for a pause: %w", blockdev.ErrReadOnly, failed)
	}
	return c.device.Err()
}

// closeError is the close for a pause that failed, nil if none did.
func (d *Disk) closeError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// StopWriteback ends the write-back of the chain that is open, and returns the
// first failure of all there were. Close does it too, without telling.
func (d *Disk) StopWriteback() error {
	d.turn.Lock()
	defer d.turn.Unlock()
	if c := d.current(); c != nil {
		d.stopWriteback(c)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost
}

// Close flushes, and closes what is open. What waits for the end of a pause
// gets blockdev.ErrClosed. A second call returns nil.
func (d *Disk) Close() error {
	d.turn.Lock()
	defer d.turn.Unlock()
	if c := d.current(); c != nil {
		d.stopWriteback(c)
	}
	err := d.gate.Close()
	d.files.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.chain, d.closed = nil, true
	return err
}
