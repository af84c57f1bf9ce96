// Package check judges the structure of a VHD image and of its chain: every
// field against the format and the file, and every block against every other.
//
// It is written apart from the engine (core/vhd) and shares nothing with it
// but the decoding of structures (core/vhd/format) and the files
// (core/io/storage), so that tests can use it as a judge of what the engine
// wrote. It only reads, repairs nothing, and never believes a number before it
// was held against the size of the file: memory is bounded by a few tens of
// MiB whatever an image says.
//
// A parent is looked for and opened by the engine's rules: where an image names
// it, only within the tree of the image's directory or one that the caller
// allows, and through no link that appears meanwhile.
//
// What counts as damage follows Microsoft's specification and vhd-util check,
// except where a program that many people use writes otherwise and every
// reader copes: such habits are notes or warnings.
package check
