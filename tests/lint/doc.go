// Package lint holds the rules of the source tree that the compiler does not:
// who may import whom, how long functions and files get, and that what is
// exported is documented. The rules are functions of a list of packages, so
// that each has a test with code that breaks it; TestTree applies them all to
// this module, in `go test ./...` and in `make lint`.
package lint
