// Package hostile tests what the built program makes of bad input: one line
// that says which image, where, which number and what to do, exit code 1, and
// nothing changed anywhere.
package hostile
