// Package vm boots a guest from a mounted disk, and from the image after it
// was unmounted.
package vm
