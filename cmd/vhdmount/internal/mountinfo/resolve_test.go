package mountinfo

import (
	"os"
	"path/filepath"
	"testing"
)

// TestResolveFollowsLinksUpToAMount: what it says of paths without one is what
// the kernel does.
func TestResolveFollowsLinksUpToAMount(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(base, name) }
	for _, err := range []error{
		os.MkdirAll(in("dir/sub"), 0o700), os.MkdirAll(in("mnt/below"), 0o700),
		os.Symlink("dir/sub", in("relative")), os.Symlink(in("relative"), in("absolute")),
		os.Symlink("../../mnt", in("dir/sub/up")), os.Symlink("nowhere", in("dangling")),
		os.Symlink("loop", in("loop")), os.Symlink("../../dir", in("mnt/below/link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"dir", "relative", "absolute", "relative/..", "absolute/../sub/up/below", "relative/up/below/link/sub"} {
		got, within := resolve(base+"/"+name, nil)
		if want, err := filepath.EvalSymlinks(base + "/" + name); err != nil || got != want || within {
			t.Errorf("%s: %s, %v; want %s, %v", name, got, within, want, err)
		}
	}
	for name, want := range map[string]string{"dangling": "nowhere", "not/there": "not/there", "relative/no": "dir/sub/no", "loop/x": "loop/x"} {
		if got, within := resolve(in(name), nil); got != in(want) || within {
			t.Errorf("%s: %s, %v", name, got, within)
		}
	}
	opaque := map[string]bool{in("mnt"): true}
	for name, want := range map[string]string{
		"mnt": "mnt", "mnt/below/link": "mnt/below/link", "absolute/up": "mnt", "absolute/up/no/../x": "mnt/x",
	} {
		if got, within := resolve(in(name), opaque); got != in(want) || !within {
			t.Errorf("with a mount: %s: %s, %v", name, got, within)
		}
	}
}

func TestResolveKnowsTheMountTable(t *testing.T) {
	root, _, err := At("/")
	if err != nil {
		t.Fatal(err)
	}
	if got, within, err := Resolve("/no/../such", root.Type); got != "/such" || !within || err != nil {
		t.Errorf("below the root: %s, %v, %v", got, within, err)
	}
	dir := t.TempDir()
	if got, within, err := Resolve(dir, "no.such.type"); within || err != nil {
		t.Errorf("%s: %s, %v, %v", dir, got, within, err)
	}
}
