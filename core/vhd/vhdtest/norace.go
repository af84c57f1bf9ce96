//go:build !race

package vhdtest

const slowness = 1
