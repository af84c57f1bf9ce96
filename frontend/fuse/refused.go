package fuse

import "github.com/hanwen/go-fuse/v2/fuse"

// What can't be done to a disk: the names in the directory stand for its parts
// and can't be changed.

// Mknod refuses; the kernel also asks it for an O_CREAT of a new name.
func (f *filesystem) Mknod(_ <-chan struct{}, _ *fuse.MknodIn, _ string, _ *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Create refuses.
func (f *filesystem) Create(_ <-chan struct{}, _ *fuse.CreateIn, _ string, _ *fuse.CreateOut) fuse.Status {
	return fuse.EPERM
}

// Mkdir refuses.
func (f *filesystem) Mkdir(_ <-chan struct{}, _ *fuse.MkdirIn, _ string, _ *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Symlink refuses.
func (f *filesystem) Symlink(_ <-chan struct{}, _ *fuse.InHeader, _, _ string, _ *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Link refuses.
func (f *filesystem) Link(_ <-chan struct{}, _ *fuse.LinkIn, _ string, _ *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Unlink refuses.
func (f *filesystem) Unlink(_ <-chan struct{}, _ *fuse.InHeader, _ string) fuse.Status {
	return fuse.EPERM
}

// Rmdir refuses.
func (f *filesystem) Rmdir(_ <-chan struct{}, _ *fuse.InHeader, _ string) fuse.Status {
	return fuse.EPERM
}

// Rename refuses.
func (f *filesystem) Rename(_ <-chan struct{}, _ *fuse.RenameIn, _, _ string) fuse.Status {
	return fuse.EPERM
}

// Ioctl knows none: the file is no block device, and programs that ask whether
// it is must be told that it isn't.
func (f *filesystem) Ioctl(_ <-chan struct{}, _ *fuse.IoctlIn, _ []byte, _ *fuse.IoctlOut, _ []byte) fuse.Status {
	return statusNotTTY
}
