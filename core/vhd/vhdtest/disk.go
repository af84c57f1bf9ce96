package vhdtest

import (
	"fmt"

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
	made    int // images made beside the first
}

func newDisk(below storage.FS, name string) *Disk {
	return &Disk{Name: name, below: below, process: newProcess(below)}
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

// Close closes the image if it is open.
func (d *Disk) Close() error {
	if d.img == nil {
		return nil
	}
	err := d.img.Close()
	d.img = nil
	return err
}

// Kill ends the process that has the image open; another will open it.
func (d *Disk) Kill() {
	d.process.kill()
	d.img, d.process = nil, newProcess(d.below)
}

// NewName is a name for an image that no one has used.
func (d *Disk) NewName() string {
	d.made++
	return fmt.Sprintf("%s.%d", d.Name, d.made)
}

// read is what the disk shows.
func (d *Disk) read() ([]Tag, error) {
	img, err := d.Image()
	if err != nil {
		return nil, err
	}
	return readTags(img)
}

func readTags(img *vhd.Image) ([]Tag, error) {
	b := make([]byte, img.Size())
	if _, err := img.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return Decode(b)
}
