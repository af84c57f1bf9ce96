package logfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func create(t *testing.T, limit int64) (*File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.log")
	f, err := Create(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLinesStayInOrderUpToTheLimit(t *testing.T) {
	f, path := create(t, 100)
	var want strings.Builder
	for i := range 10 {
		fmt.Fprintf(f, "line %04d\n", i)
		fmt.Fprintf(&want, "line %04d\n", i)
	}
	if got := content(t, path); got != want.String() {
		t.Errorf("got %q", got)
	}
}

func TestTheOlderHalfGoesAtTheLimit(t *testing.T) {
	f, path := create(t, 100)
	for i := range 11 {
		if _, err := fmt.Fprintf(f, "line %04d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	// The younger half is five lines, the first of which may be a part.
	want := "line 0006\nline 0007\nline 0008\nline 0009\nline 0010\n"
	if got := content(t, path); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTheFileNeverPassesTheLimitAndEndsWithTheLastLine(t *testing.T) {
	f, path := create(t, 1000)
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 200 {
				fmt.Fprintf(f, "writer %d says %s %d\n", w, strings.Repeat("x", i%50), i)
			}
		})
	}
	writers.Wait()
	fmt.Fprintln(f, "the end")
	got := content(t, path)
	if len(got) > 1000 || !strings.HasSuffix(got, "\nthe end\n") {
		t.Errorf("%d bytes, ending in %q", len(got), got[max(0, len(got)-20):])
	}
	for _, line := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
		if !strings.HasPrefix(line, "writer ") && line != "the end" {
			t.Errorf("a torn line: %q", line)
		}
	}
}

func TestCreateContinuesALogAndCountsWhatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(path, []byte(strings.Repeat("old line\n", 11)), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, "new")
	// 99 bytes are there; of the younger 50 the first line is a part.
	if got, want := content(t, path), strings.Repeat("old line\n", 5)+"new\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOthersMayWriteToTheSameFile(t *testing.T) {
	f, path := create(t, 100)
	fmt.Fprintln(f, "first")
	fmt.Fprintln(f.OSFile(), "panic: as standard error")
	fmt.Fprintln(f, "last")
	if got, want := content(t, path), "first\npanic: as standard error\nlast\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCreateFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "x.log")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	if f, err := Create(link, 100); err == nil {
		f.Close()
		t.Error("a symbolic link was followed")
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the link's target was made")
	}
}
