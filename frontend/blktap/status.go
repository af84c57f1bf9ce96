package blktap

import "errors"

// What a response says. The module makes EIO of everything but statusOK.
const (
	statusOK           int16 = 0
	statusError        int16 = -1
	statusNotSupported int16 = -2
)

// errNotSupported is an operation that this disk was not offered with.
var errNotSupported = errors.New("not supported by this disk")

// statusOf is the one table from errors to ring statuses. A full disk, a
// read-only one, a range that is none, damage in an image and a page that
// isn't there are all the same to the module: the request failed.
func statusOf(err error) int16 {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, errOperation), errors.Is(err, errNotSupported):
		return statusNotSupported
	default:
		return statusError
	}
}
