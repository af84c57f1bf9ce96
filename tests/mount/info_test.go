package mount

import (
	"encoding/json"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// imageInfo is a part of what `vhdmount info --json` prints.
type imageInfo struct {
	Image       string `json:"image"`
	VirtualSize int64  `json:"virtual_size"`
	Allocated   int64  `json:"allocated"`
	Layers      []struct {
		Image           string `json:"image"`
		Type            string `json:"type"`
		FileSize        int64  `json:"file_size"`
		FileAllocated   int64  `json:"file_allocated"`
		AllocatedBlocks int64  `json:"allocated_blocks"`
		Parent          string `json:"parent"`
	} `json:"layers"`
	Warnings []string `json:"warnings"`
}

// info is what the program says of an image and its parents.
func info(t *testing.T, b *harness.Box, image string) imageInfo {
	t.Helper()
	return decode[imageInfo](t, b.OK("info", "--json", "--chain", image))
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}
