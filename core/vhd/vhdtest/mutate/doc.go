// Package mutate makes hostile images out of good ones, field by field, for
// fuzz targets: what a mutator of bytes finds only by chance (a BAT entry that
// leads into another block under a checksum that is right) is one step here.
//
// A program, which is any bytes at all, says what is changed. Each of its
// instructions takes one field of one record, or one thing of the file, and a
// value: the bounds of integers, or a landmark of the very image (its header,
// its BAT, each block, its end …), a little more, a little less. Programs that
// are alike make images that are alike, so that a fuzzer that goes by coverage
// can work on them.
//
//	f.Fuzz(func(t *testing.T, program []byte) {
//		image := mutate.Image(good, program)
//		…
//	})
//
// Records are written by package format, and so with their checksums mended,
// unless an instruction spoils them.
package mutate
