package hostile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/tests/harness"
)

// childNaming makes a differencing image over a raw parent, so that any file
// would do for one, which says that its parent is at path.
func childNaming(t *testing.T, b *harness.Box, image, path string, code format.LocatorCode) {
	t.Helper()
	const size = 1 << 20
	text, err := format.EncodeLocatorPath(code, path)
	check(t, err)
	data := make([]byte, 4096)
	footer, header := format.NewFooter(size, format.Differencing, time.Unix(1700000000, 0)), format.NewHeader(size, 0)
	header.ParentName = filepath.Base(path)
	header.Locators[0] = format.Locator{Code: code, DataSpace: 512, DataLength: uint32(len(text)), DataOffset: 2048}
	footer.Encode(data)
	header.Encode(data[512:])
	format.EncodeBAT(data[batAt:], []uint32{format.UnallocatedBlock})
	copy(data[2048:], text)
	footer.Encode(data[len(data)-512:])
	b.Write(image, data)
}

// refusesTheChild checks that whatever opens a chain refuses vm/child.vhd's,
// says why, and soon.
func refusesTheChild(t *testing.T, b *harness.Box, word string) {
	t.Helper()
	for _, args := range [][]string{{"mount", "vm/child.vhd", "mnt"}, {"mount", "-r", "vm/child.vhd", "mnt"}, {"map", "vm/child.vhd"}, {"snapshot", "vm/child.vhd", "vm/next.vhd"}} {
		began := time.Now()
		refuses(t, b, args, "child.vhd", word)
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%v took %v", args, took)
		}
	}
}

// TestParentsThatAnImageMayNotHave: what an image names is opened only if it is
// a regular file of the image's own directory tree, and never waited for.
func TestParentsThatAnImageMayNotHave(t *testing.T) {
	t.Parallel()
	b := harness.New(t)
	b.Mkdir("vm")
	b.Mkdir("mnt")
	b.Write("secret", harness.Random(1, 1<<20))
	check(t, unix.Mkfifo(b.Path("vm/fifo"), 0o644))
	check(t, os.Symlink(b.Path("secret"), b.Path("vm/link")))
	check(t, os.Symlink(b.Dir, b.Path("vm/up")))
	check(t, os.Symlink("/dev/zero", b.Path("vm/zero")))
	b.Mkdir("vm/folder")
	up := "../../../../../../../.."
	const outside, irregular = "outside the image's directory", "not a regular file"
	for name, c := range map[string]struct {
		path string
		code format.LocatorCode
		word string
	}{
		"upwards":                 {up + "/etc/shadow", format.CodeW2ru, outside},
		"upwards, as a URL":       {up + "/etc/shadow", format.CodeMacX, outside},
		"beside":                  {"../secret", format.CodeW2ru, outside},
		"down and up":             {"folder/../../secret", format.CodeW2ru, outside},
		"absolute":                {"/etc/shadow", format.CodeW2ku, outside},
		"absolute, as a URL":      {"/etc/shadow", format.CodeMacX, outside},
		"a link":                  {"link", format.CodeW2ru, irregular},
		"through a link":          {"up/secret", format.CodeW2ru, outside},
		"a device":                {"/dev/zero", format.CodeW2ku, outside},
		"a link to a device":      {"zero", format.CodeW2ru, irregular},
		"a FIFO":                  {"fifo", format.CodeW2ru, irregular},
		"a directory":             {"folder", format.CodeW2ru, irregular},
		"a process's own file":    {"/proc/self/fd/0", format.CodeW2ku, outside},
		"the image itself":        {"child.vhd", format.CodeW2ru, "loop"},
		"the directory of itself": {".", format.CodeW2ru, irregular},
	} {
		t.Run(name, func(t *testing.T) {
			childNaming(t, b, "vm/child.vhd", c.path, c.code)
			refusesTheChild(t, b, c.word)
			// What lies outside is none of a check's business, and no damage.
			r := b.Run("check", "vm/child.vhd")
			if away := strings.Contains(r.Stdout, "lies outside of the image's directory and was not looked at"); away != (r.Code == 0) || r.Code == 2 {
				t.Errorf("check: %+v", r)
			}
		})
	}
}

// TestADeviceNodeIsNoParent, though it lies in the image's own directory tree and
// would serve for one; it isn't opened to see that, which a driver could notice.
func TestADeviceNodeIsNoParent(t *testing.T) {
	t.Parallel()
	harness.Root(t)
	harness.Tools(t, "losetup")
	b := harness.New(t)
	b.Mkdir("vm")
	b.Mkdir("vm/nodes")
	b.Mkdir("mnt")
	b.Write("secret", harness.Random(1, 1<<20))
	var loop unix.Stat_t
	check(t, unix.Stat(b.Loop("secret"), &loop))
	// The kernel gives no driver a number from 512 on. To open a node of one
	// fails, and with another error than the one wanted.
	const driverless = 4095
	for name, node := range map[string]struct {
		kind   uint32
		number uint64
	}{
		"a block device":                      {unix.S_IFBLK, loop.Rdev},
		"a block device without a driver":     {unix.S_IFBLK, unix.Mkdev(driverless, 1)},
		"a character device":                  {unix.S_IFCHR, unix.Mkdev(1, 5)}, // zeros
		"a character device without a driver": {unix.S_IFCHR, unix.Mkdev(driverless, 1)},
	} {
		for _, place := range []string{"node", "nodes/node"} {
			t.Run(name+", "+place, func(t *testing.T) {
				path := b.Path("vm/" + place)
				check(t, unix.Mknod(path, node.kind|0o666, int(node.number)))
				defer os.Remove(path)
				childNaming(t, b, "vm/child.vhd", place, format.CodeW2ru)
				refusesTheChild(t, b, "not a regular file")
				r := b.Run("check", "vm/child.vhd")
				if said := path + " (not a regular file)"; r.Code != 3 || !strings.Contains(r.Stdout, said) {
					t.Errorf("check: %+v; want exit code 3 and %q", r, said)
				}
			})
		}
	}
}
