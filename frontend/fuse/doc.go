// Package fuse shows a disk as a file, or as a directory with the disk, its
// partitions and a description, through the kernel's FUSE.
//
//	f := fuse.New(fuse.Options{Mountpoint: "/mnt/disk"})
//	session, err := f.Attach(ctx, dev)
//	if err != nil {
//		return err
//	}
//	fmt.Println(session.Path()) // /mnt/disk/disk.raw
//	…
//	return session.Detach(ctx)
//
// A mount point that is a directory shows disk.raw, p1.raw, p2.raw … for the
// partitions that the disk's table names, and info.json; one that is a regular
// file becomes the disk. The files act as the block devices that they stand
// for:
//
//   - The size is fixed. O_TRUNC changes nothing, nor does truncation to the
//     size that is; to any other it is EPERM. A write past the end is ENOSPC,
//     a write across it is short, or ENOSPC if it is direct.
//   - fsync and fdatasync return when everything is on stable storage,
//     whichever file it was written through. close promises nothing, as with a
//     block device; Detach flushes. A sync that failed below is final: fsync is
//     EIO from then on, and writes are EROFS.
//   - lseek's SEEK_DATA and SEEK_HOLE, and st_blocks, tell what is allocated.
//     fallocate punches holes and zeroes ranges, which read as zeros after.
//   - A partition table that was changed shows when the directory is looked at
//     next. Who has a partition open that moved keeps the bytes that it was.
//   - disk.raw and the partitions show the same bytes: what was written
//     through one is read through another after the writer's fsync or close,
//     or after the reader's open. Only programs that keep both open, and
//     neither sync nor reopen, may see old bytes, for moments.
//   - Names, owners and permission bits can't be changed. The permission bits
//     are enforced.
//
// A device's error is its client's errno, by one table, and a line in the log;
// the mount goes on. The kernel's page cache is used for reading and writes go
// through it: the writeback cache of FUSE stays off, because the kernel would
// then accept writes past the end and tell of their failure too late.
//
// The process that shows a disk may open, read and write it like any other, but
// must not touch a mapping of it: a page fault keeps one of the Go runtime's
// processors, which the server may need to answer it.
//
// The package mounts by itself, with mount(2) where it may and fusermount3
// where it may not. It uses the protocol of go-fuse, and its own threads to
// carry requests.
package fuse
