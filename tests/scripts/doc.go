// Package scripts tests the shell in scripts/: which packages run-tests gives
// which flags, that deps does nothing where nothing is missing, and the demo
// as a whole.
package scripts
