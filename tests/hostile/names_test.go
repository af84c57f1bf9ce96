package hostile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// shellNames are file names that would do something if any of them reached a
// shell, or were taken for an option: make a file whose name has "pwned" in it.
// The quotes are each other's way out.
var shellNames = map[string]string{
	"substitution":    "$(touch pwned)",
	"backquotes":      "`touch pwned`",
	"semicolon":       "a;touch pwned;b",
	"ampersand":       "a&touch pwned&",
	"pipe":            "|touch pwned",
	"newline":         "a\ntouch pwned\n",
	"single quote":    "a';touch pwned;'",
	"double quote":    `a";touch pwned;"`,
	"backslash":       `a\";touch pwned;\"`,
	"variable":        "${x:=pwned}$HOME",
	"redirection":     ">pwned",
	"a dash":          "-o",
	"an option":       "--foreground",
	"comma":           "a,allow_other,b",
	"glob":            "*[a-z]?{x,y}",
	"tilde":           "~",
	"escape sequence": "\x1b]0;pwned\x07",
	"blanks":          " a \t b ",
	"format":          "%s%n%d",
}

// notPwned sees that no name became a command.
func notPwned(t *testing.T, b *harness.Box) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(b.Dir, "*pwned*"))
	check(t, err)
	for _, name := range found {
		if base := filepath.Base(name); base == "pwned" || strings.HasPrefix(base, "pwned ") {
			t.Errorf("%q was made: a name reached a shell", name)
		}
	}
}

// TestNamesReachNoShell, through every verb that takes one.
func TestNamesReachNoShell(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	for name, text := range shellNames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mountsByName(t, harness.New(t), text)
		})
	}
}

// mountsByName has an image and a mount point of that name, and where it can be
// a child of the image, go through the verbs.
func mountsByName(t *testing.T, b *harness.Box, name string) {
	t.Helper()
	image, point, child := name+".vhd", name, name+".child.vhd"
	b.OK("create", "--", "8M", image)
	if strings.Contains(name, `\`) {
		child = image // no locator can name it as a parent
	} else {
		b.OK("snapshot", "--", image, child)
	}
	b.Mkdir(point)
	for _, verb := range []string{"info", "map", "check"} {
		b.OK(verb, "--", child)
	}
	disk := b.OK("mount", "--", child, point)
	if want := filepath.Join(b.Path(point), "disk.raw") + "\n"; disk != want {
		t.Errorf("mount printed %q, want %q", disk, want)
	}
	check(t, os.WriteFile(strings.TrimSuffix(disk, "\n"), []byte("content"), 0))
	list := b.List()
	if len(list) != 1 || list[0].Image != b.Path(child) {
		t.Errorf("the list: %+v", list)
	}
	for _, ch := range b.OK("list") {
		if ch < ' ' && ch != '\n' && ch != '\t' {
			t.Errorf("the list has the control character %q in it", ch)
		}
	}
	b.OK("unmount", "--", point)
	b.OK("mount", "--", image)
	b.OK("unmount", "--", image)
	if left := b.Mounts(); len(left) != 0 {
		t.Errorf("still mounted: %v", left)
	}
	b.OK("check", "--", child)
	notPwned(t, b)
}

// TestOptionsReachNoShell: what -o takes is shown in the mount table, where
// others read it.
func TestOptionsReachNoShell(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "8M", "disk.vhd")
	for name, text := range shellNames {
		if strings.Contains(text, ",") {
			continue // a comma is -o's own
		}
		b.Mkdir("mnt")
		b.OK("mount", "-o", "fsname="+text, "disk.vhd", "mnt")
		if mounts := b.Mounts(); len(mounts) != 1 {
			t.Errorf("%s: %d mounts: %q", name, len(mounts), mounts)
		}
		b.OK("unmount", "mnt")
		check(t, os.Remove(b.Path("mnt")))
	}
	notPwned(t, b)
}

// TestCompletionReachesNoShell: bash completes files with such names, and words
// that are typed like them, and runs nothing of it.
func TestCompletionReachesNoShell(t *testing.T) {
	t.Parallel()
	b := harness.New(t)
	b.Write("completion", []byte(b.OK("completion", "bash")))
	words := []string{"", "a", "-", "*"}
	for _, name := range shellNames {
		b.Write(name+".vhd", nil)
		words = append(words, name)
	}
	const complete = `source ./completion
COMP_WORDS=(vhdmount mount "$1") COMP_CWORD=2
_vhdmount vhdmount "$1" mount
COMP_WORDS=(vhdmount "$1") COMP_CWORD=1
_vhdmount vhdmount "$1" vhdmount
COMP_WORDS=(vhdmount mount --parent "$1") COMP_CWORD=3
_vhdmount vhdmount "$1" --parent
printf '%s\n' "${COMPREPLY[@]}"`
	for _, word := range words {
		b.Tool("bash", "-c", complete, "bash", word)
	}
	notPwned(t, b)
}
