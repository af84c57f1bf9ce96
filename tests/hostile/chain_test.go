package hostile

import (
	"fmt"
	"os"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// chain makes base.vhd and child.vhd, and a directory to mount at.
func chain(t *testing.T) *harness.Box {
	t.Helper()
	b := harness.New(t)
	b.OK("create", "64M", "base.vhd")
	b.OK("snapshot", "base.vhd", "child.vhd")
	b.Mkdir("mnt")
	return b
}

func TestAMissingParent(t *testing.T) {
	t.Parallel()
	b := chain(t)
	check(t, os.Remove(b.Path("base.vhd")))
	for _, args := range [][]string{{"mount", "child.vhd", "mnt"}, {"mount", "-r", "child.vhd", "mnt"}, {"map", "child.vhd"}} {
		refuses(t, b, args, "child.vhd", "base.vhd", "not found", "--parent")
	}
	refuses(t, b, []string{"mount", "--parent", "none.vhd", "child.vhd", "mnt"}, "child.vhd", "none.vhd", "not found")
}

func TestAParentWithAnotherUUID(t *testing.T) {
	t.Parallel()
	b := chain(t)
	check(t, os.Remove(b.Path("base.vhd")))
	b.OK("create", "64M", "base.vhd")
	for _, args := range [][]string{{"mount", "child.vhd", "mnt"}, {"map", "child.vhd"}} {
		refuses(t, b, args, "child.vhd", "base.vhd", "UUID", "--force-parent")
	}
}

func TestALoopOfParents(t *testing.T) {
	t.Parallel()
	b := chain(t)
	b.OK("snapshot", "child.vhd", "grandchild.vhd")
	// The grandchild takes the base's place: its parent is the child, whose
	// parent it now is.
	check(t, os.Rename(b.Path("grandchild.vhd"), b.Path("base.vhd")))
	for _, args := range [][]string{
		{"mount", "--force-parent", "child.vhd", "mnt"}, {"mount", "-r", "--force-parent", "child.vhd", "mnt"},
		{"map", "--force-parent", "child.vhd"}, {"mount", "--force-parent", "base.vhd", "mnt"},
	} {
		refuses(t, b, args, "loop")
	}
	refuses(t, b, []string{"mount", "--force-parent", "--parent", "child.vhd", "child.vhd", "mnt"}, "child.vhd", "loop")
}

func TestAParentThatIsNoImage(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(b *harness.Box){
		"text":      func(b *harness.Box) { b.Write("base.vhd", []byte("text")) },
		"directory": func(b *harness.Box) { b.Mkdir("base.vhd") },
		"link":      func(b *harness.Box) { check(t, os.Symlink("/dev/zero", b.Path("base.vhd"))) },
		"damaged": func(b *harness.Box) {
			b.OK("create", "64M", "base.vhd")
			data := b.Read("base.vhd")
			data[headerAt+700]++
			b.Write("base.vhd", data)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := chain(t)
			check(t, os.Remove(b.Path("base.vhd")))
			spoil(b)
			refuses(t, b, []string{"mount", "child.vhd", "mnt"}, "base.vhd")
		})
	}
}

// TestAParentElsewhere is opened only where the user allows it.
func TestAParentElsewhere(t *testing.T) {
	t.Parallel()
	b := harness.New(t)
	b.Mkdir("masters")
	b.Mkdir("clones")
	b.Mkdir("mnt")
	b.OK("create", "64M", "masters/base.vhd")
	b.OK("snapshot", "masters/base.vhd", "clones/child.vhd")
	refuses(t, b, []string{"mount", "clones/child.vhd", "mnt"}, "clones/child.vhd", "masters/base.vhd", "--parent-dir")
	b.OK("map", "--parent-dir", "masters", "clones/child.vhd")
	b.OK("map", "--parent", "masters/base.vhd", "clones/child.vhd")
}

func TestAChainThatIsTooDeep(t *testing.T) {
	t.Parallel()
	b := chain(t)
	last := "base.vhd"
	var failed string
	for i := range 300 {
		next := fmt.Sprintf("%d.vhd", i)
		if r := b.Run("snapshot", last, next); r.Code != 0 {
			failed = r.Stderr
			break
		}
		last = next
	}
	if failed == "" {
		t.Fatal("a chain of 300 parents was made")
	}
	b.OK("map", last)
}
