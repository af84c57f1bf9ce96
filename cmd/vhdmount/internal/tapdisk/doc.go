// Package tapdisk is the server side of tap-ctl's protocol: a process that
// listens where a tapdisk does and answers the same messages, so that Xen's
// own tap-ctl lists, attaches, opens, pauses, closes and detaches its disks.
//
//	server := tapdisk.New(tapdisk.Options{LockMemory: true, Log: log})
//	if err := server.Listen(); err != nil {
//		return err
//	}
//	fmt.Println(server.Socket())  // /var/run/blktap-control/ctl4711
//	return server.Run(received)   // until the last disk is detached
//
// The life of a disk: attach maps the ring of a minor; open opens the image and
// makes the block device; pause drains, flushes and closes the chain, unpause
// opens it afresh, under another name if one is given; close takes the block
// device away, unless somebody has it open, flushes, and closes the image;
// detach unmaps the ring. The detach of the last disk ends the server.
//
// A disk that was opened by other means, as `vhdmount mount --frontend blktap`
// does, is shown to tap-ctl by Adopt. It is any Disk; Live makes one of an
// image behind a gate and its session.
//
//	shown, err := server.Adopt(session.Tap(), tapdisk.Live(disk, session, o))
//	… // until the disk is taken away, by a message or otherwise
//	shown.Gone(ctx)
//	server.Close()
//
// Nothing that a client sends ends the process or disturbs a guest: what makes
// no sense is answered by the protocol's own error, and so is what fails.
//
// Files: server.go is the life of the server, conn.go a connection, handle.go
// the messages, attachment.go a minor and what is open on it, live.go an open
// image, stats.go what STATS tells, errno.go the table from errors to errnos.
package tapdisk
