package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCINeedsTheRaceDetector, or its servers' races would pass unseen.
func TestCINeedsTheRaceDetector(t *testing.T) {
	t.Setenv("CI", "true")
	t.Setenv("CC", "/nonexistent")
	file := filepath.Join(t.TempDir(), "vhdmount")
	if err := buildInto(file); err == nil || !strings.Contains(err.Error(), "go build") {
		t.Errorf("without a C compiler: %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the program was built all the same")
	}
}
