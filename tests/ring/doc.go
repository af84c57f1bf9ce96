// Package ring has the tests that join what the lint rules keep apart in the
// packages themselves: a VHD behind blktap's ring.
package ring
