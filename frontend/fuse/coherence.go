package fuse

// disk.raw and the partitions are different files over the same bytes, and the
// kernel caches each for itself. What keeps them true to each other, without a
// cost while only one of them is open:
//
//   - A file that is closed while another that shares bytes with it is open
//     for writing, or is opened for writing later, has its cached pages
//     dropped when it is opened next.
//   - A write through one file while another that shares its bytes is open
//     makes the kernel drop the other's pages of that range. That is done by
//     one goroutine, the invalidator, after the write was answered: the kernel
//     locks the pages of both files during buffered writes, and two writers
//     that waited for each other's pages would hang for good.
//   - fsync, close and open wait until what was queued before is done.
//
// So what was written through one file is read through another after the
// writer's fsync or close, or after the reader's open; and, without those,
// moments later. Reads that are not cached (O_DIRECT) are always true.

// opened counts h in and tells whether the kernel may keep the pages that it
// has of h's node.
func (f *filesystem) opened(h *handle) (keep bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := h.node
	n.opens++
	if h.write {
		n.writers++
		for _, s := range *f.nodes.Load() {
			if s.opens == 0 && overlap(n, s) {
				s.stale = true
			}
		}
	}
	keep = !n.stale
	n.stale = false
	f.linkSiblings()
	return keep
}

// closed counts h out.
func (f *filesystem) closed(h *handle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := h.node
	n.opens--
	if h.write {
		n.writers--
	}
	if n.opens == 0 {
		for _, s := range *f.nodes.Load() {
			if s.writers > 0 && overlap(n, s) {
				n.stale = true
			}
		}
	}
	f.linkSiblings()
	f.dropNode(n)
}

// linkSiblings tells each node which open files share bytes with it. f.mu is
// held.
func (f *filesystem) linkSiblings() {
	nodes := *f.nodes.Load()
	for _, n := range nodes {
		var open []*node
		for _, s := range nodes {
			if s.opens > 0 && overlap(n, s) {
				open = append(open, s)
			}
		}
		if open == nil {
			n.siblings.Store(nil)
		} else {
			n.siblings.Store(&open)
		}
	}
}

// overlap tells whether two different nodes share bytes of the disk.
func overlap(a, b *node) bool {
	return a != b && a.dev != nil && b.dev != nil && a.off < b.off+b.size && b.off < a.off+a.size
}

// invalidate queues that [off, off+length) of the disk is to be dropped from
// what the kernel has of nodes.
func (f *filesystem) invalidate(nodes []*node, off, length int64) {
	for _, n := range nodes {
		start, end := max(off, n.off), min(off+length, n.off+n.size)
		if start < end {
			f.inval.add(n.id, start-n.off, end-n.off)
		}
	}
}

// settle returns when what was queued before is done.
func (f *filesystem) settle() {
	if f.inval.idle() {
		return
	}
	f.transport.handOver(forKernel)
	defer f.transport.takeBack(forKernel)
	f.inval.wait()
}
