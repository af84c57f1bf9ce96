// Package storagetest has what tests need of the storage waist: Run, the
// conformance suite that every storage.FS passes, and three that the operating
// system can't give:
//
//   - Memory, a file system on the heap, in which 2 TiB of hole cost nothing;
//   - Crash, a Memory that records what is done to it and yields every state
//     that a power cut could have left;
//   - Fault, which makes chosen calls of another file system fail.
//
// They compose: a Fault over a Crash loses what was written before a sync that
// failed, and the states of the Crash show what a power cut makes of it.
//
// LoopDevice is a block device of the operating system's, for those that open
// one.
package storagetest
