//go:build race

package harness

// raceDetector tells whether this program has it.
const raceDetector = true
