package lint

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	verbLine = regexp.MustCompile(`(?m)^ {3}([a-z]+)(?:, [a-z]+)* {2,}`)
	flagWord = regexp.MustCompile(`(?m)^ {3}-.*`)
	longFlag = regexp.MustCompile(`--[a-z][a-z-]*|(?:^|[ ,])-[a-z]\b`)
)

// TestManualNamesEveryVerbAndFlag compares the manual page with what the
// command says of itself.
func TestManualNamesEveryVerbAndFlag(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "vhdmount")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "../../cmd/vhdmount").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	page, err := os.ReadFile("../../man/vhdmount.1")
	if err != nil {
		t.Fatal(err)
	}
	manual := strings.ReplaceAll(string(page), `\-`, "-")
	help := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), binary, append([]string{"help"}, args...)...).Output()
		if err != nil {
			t.Fatalf("help %s: %v", args, err)
		}
		return string(out)
	}
	verbs := verbLine.FindAllStringSubmatch(help(), -1)
	if len(verbs) < 8 {
		t.Fatalf("the help lists %d verbs:\n%s", len(verbs), help())
	}
	for _, verb := range verbs {
		if !strings.Contains(manual, "\n.SS "+verb[1]+" ") {
			t.Errorf("the manual page has no section for %s", verb[1])
		}
		for _, line := range flagWord.FindAllString(help(verb[1]), -1) {
			names, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
			for _, flag := range longFlag.FindAllString(names, -1) {
				if !strings.Contains(manual, strings.Trim(flag, " ,")) {
					t.Errorf("the manual page lacks %s of %s", flag, verb[1])
				}
			}
		}
	}
}

// TestCodeMapHasEveryPackage compares ARCHITECTURE.md's code map with the
// tree.
func TestCodeMapHasEveryPackage(t *testing.T) {
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	packages, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		if !strings.Contains(string(text), "\n| `"+p.Path+"` | ") {
			t.Errorf("%s has no line in ARCHITECTURE.md's code map", p.Path)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(filepath.Join("../..", row[1])); err != nil {
			t.Errorf("the code map has a line for %s, which is not there", row[1])
		}
	}
}
