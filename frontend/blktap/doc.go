// Package blktap shows a disk as a block device of the blktap module, served
// over the module's shared-memory ring as tapdisk does:
//
//	f := blktap.New(blktap.Options{LockMemory: true})
//	session, err := f.Attach(ctx, dev)
//	if err != nil {
//		return err
//	}
//	fmt.Println(session.Path()) // /dev/xen/blktap-2/tapdev0
//	return session.Wait()
//
// Three modules are in the field (dkms, openxt, XenServer's). Which one it is
// is found out by asking it, never by its version: what the ring can do is
// what the module says of the device that it made. Where the ring has no
// flush, a write is answered when it is stable.
//
// One goroutine makes all system calls of a ring, takes requests off it, and
// puts responses on it; a fixed set of workers does the I/O. Whatever the ring
// says is copied once and then checked: a request that makes no sense gets an
// error, and nothing that a guest or the module does ends the process. The
// pages of a request are touched between its appearance and its answer alone.
//
// In the steady state nothing is allocated. Whoever serves the swap or the
// root device sets Options.LockMemory, bounds Go's heap, and becomes a daemon
// first: the module refuses whoever forked after Attach. The ring's goroutine
// sleeps in a system call, in which it keeps its processor for a while: run
// with GOMAXPROCS above one, where there is one processor too.
//
// The package knows nothing of images, nor of tapdisk's control protocol.
// Package blktaptest is a module to test with.
//
// Files: ring.go is the memory and its cursors, serve.go the goroutine of a
// ring, job.go the workers, driver.go the seam to the module, system.go and
// port.go the kernel's behind it, create.go what kind of module it is, mapped.go
// a ring before there is a disk.
package blktap
