// Package blktaptest is a blktap module that exists on the Go heap: a Kernel
// stands in for the running one's behind blktap.Driver and blktap.Port, so that
// a ring can be served under the race detector and without any privilege.
//
//	k := blktaptest.New(t, blktaptest.OpenXT)
//	session, err := blktap.New(blktap.Options{Driver: k}).Attach(ctx, dev)
//	disk, err := k.OpenDisk(session.Path()) // what a guest sees of dev
//
// It does what the three modules in the field do, as their sources say, and
// nothing more kindly: requests appear on the ring only inside of a wait for
// it, answered pages are gone, errors are those of the variant. It knows the
// layout of the shared memory from the interface, not from package blktap.
//
// What a server must not do fails the test: touching a page of an answered
// request, answering what was not asked, calling from two threads. What a
// module should not do, it does on demand (Inject, LieAboutProduced, Fail).
package blktaptest
