// Package crash kills the built program's server while programs write to its
// disk or a live snapshot is made of it, and does to it what else may befall a
// server: a full or failing file system, a power cut below, a limit, a stop.
// Every other round goes past the page cache. Every synced byte is there
// afterwards, the image needs no repair, and nothing of the mount is left.
package crash
