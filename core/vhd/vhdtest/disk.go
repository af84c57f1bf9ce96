package vhdtest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
)

// Disk is what the steps of a program work on: an image, opened as soon as a
// step needs it. Image may be called by several goroutines at once as long as
// the image is open; nothing else.
type Disk struct {
	// Name is the image that is the disk now. An operation that makes another
	// one the disk closes this one and changes Name.
	Name string

	below   storage.FS
	process *process
	img     *vhd.Image
	show    Show            // nil: the image itself is worked on
	shown   blockdev.Device // what show made of img; nil without one
	made    int             // images made beside the first
}

// Show puts something before an image, through which programs reach it, as a
// frontend does. The Device's Close takes that away and leaves the image open.
type Show func(img *vhd.Image) (blockdev.Device, error)

func newDisk(below storage.FS, name string, show Show) *Disk {
	return &Disk{Name: name, below: below, process: newProcess(below), show: show}
}

// FS is the storage to work on.
func (d *Disk) FS() storage.FS { return d.process.FS }

// Image is the image, open for writing.
func (d *Disk) Image() (*vhd.Image, error) {
	if d.img == nil {
		img, err := vhd.Open(d.Name, vhd.Options{FS: d.FS()})
		if err != nil {
			return nil, err
		}
		d.img = img
	}
	return d.img, nil
}

// Device is the image, or what shows it: what operations read and write.
func (d *Disk) Device() (blockdev.Device, error) {
	img, err := d.Image()
	if err != nil {
		return nil, err
	}
	if d.show == nil {
		return img, nil
	}
	if d.shown == nil {
		if d.shown, err = d.show(img); err != nil {
			return nil, err
		}
	}
	return d.shown, nil
}

// hide takes away what shows the image.
func (d *Disk) hide() error {
	if d.shown == nil {
		return nil
	}
	err := d.shown.Close()
	d.shown = nil
	return err
}

// Close closes the image if it is open.
func (d *Disk) Close() error {
	if d.img == nil {
		return nil
	}
	err := errors.Join(d.hide(), d.img.Close())
	d.img = nil
	return err
}

// Kill ends the process that has the image open; another will open it.
func (d *Disk) Kill() {
	d.process.kill()
	_ = d.hide() // fails, as all does that a dead process tries
	d.img, d.process = nil, newProcess(d.below)
}

// NewName is a name for an image that no one has used.
func (d *Disk) NewName() string {
	d.made++
	return fmt.Sprintf("%s.%d", d.Name, d.made)
}

// read is what the disk shows.
func (d *Disk) read() ([]Tag, error) {
	dev, err := d.Device()
	if err != nil {
		return nil, err
	}
	return readTags(dev)
}

func readTags(dev blockdev.Device) ([]Tag, error) {
	b, err := readDisk(dev, nil)
	if err != nil {
		return nil, err
	}
	return Decode(b)
}

// readDisk reads a whole disk into buf, which may be moved. What was in buf
// before is not taken for something that was read.
func readDisk(dev blockdev.Device, buf []byte) ([]byte, error) {
	buf = slices.Grow(buf[:0], int(dev.Size()))[:dev.Size()]
	clear(buf)
	_, err := dev.ReadAt(buf, 0)
	return buf, err
}
