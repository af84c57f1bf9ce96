// Package crash kills the built program's server at random moments while
// programs write to its disk, and checks that every synced byte is there
// afterwards and that the image needs no repair.
package crash
