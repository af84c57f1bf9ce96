// Package mount tests the built program as its users meet it: real programs
// and system calls on disks that it has mounted, and what its verbs say.
package mount
