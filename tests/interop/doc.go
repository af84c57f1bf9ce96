// Package interop tests the built program beside qemu's tools and libvhdi:
// each reads what the other wrote, and respects what the other has open.
package interop
