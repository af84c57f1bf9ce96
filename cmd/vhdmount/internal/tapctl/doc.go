// Package tapctl speaks the protocol by which a tapdisk is driven: the
// 544-byte messages that Xen's tap-ctl and a tapdisk exchange over a Unix
// socket, and the calls that are made of them.
//
// A tapdisk listens on a stream socket named after its process,
// /var/run/blktap-control/ctlPID. A connection carries a request and its
// answer: one message each way, for [TypeList] several, for [TypeStats] one
// with JSON behind it. What the messages mean to a tapdisk is not here, nor is
// the blktap module: allocating minors is frontend/blktap's.
//
//	dir := tapctl.Dir{Path: tapctl.DefaultDir}
//	disks, err := dir.List(ctx, pid)
package tapctl
