// Package soak keeps the built program busy for as long as it is told, with
// clients that verify every byte they read, and holds its memory and its
// descriptors to what they were when it had warmed up.
package soak
