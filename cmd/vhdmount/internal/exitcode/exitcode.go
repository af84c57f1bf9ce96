// Package exitcode is the one table from errors to the command's exit code.
//
//	0  fine
//	1  failed
//	2  usage: an unknown verb or flag, wrong arguments, a bad size
//	3  check found damage
//
// An error that carries no code is a failure. A verb that means another code
// says so where the error is made, with Usage or Damage.
package exitcode

import (
	"errors"
	"fmt"
)

// The command's exit codes. They are part of its stable interface.
const (
	OK     = 0
	Failed = 1
	Usage  = 2
	Damage = 3
)

// Error is an error with the exit code it leads to.
type Error struct {
	Code int
	Err  error
}

// Error is the message of Err.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap is Err.
func (e *Error) Unwrap() error { return e.Err }

// Usagef is an error of how the command was called.
func Usagef(format string, args ...any) error {
	return &Error{Code: Usage, Err: fmt.Errorf(format, args...)}
}

// Damagef says that an image was read to its end and is damaged.
func Damagef(format string, args ...any) error {
	return &Error{Code: Damage, Err: fmt.Errorf(format, args...)}
}

// Of is the code that err leads to.
func Of(err error) int {
	var coded *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &coded):
		return coded.Code
	default:
		return Failed
	}
}
