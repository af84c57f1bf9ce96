package hostile

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// TestWhatIsNoImage, by every verb that takes one.
func TestWhatIsNoImage(t *testing.T) {
	t.Parallel()
	b := harness.New(t)
	b.Mkdir("mnt")
	b.Mkdir("dir")
	b.Write("note.txt", []byte("not a disk\n"))
	b.Write("empty.vhd", nil)
	b.Write("zeros.vhd", make([]byte, 1<<20))
	b.Write("random.vhd", harness.Random(1, 1<<20))
	b.Write("cookie.vhd", []byte("conectix"))
	b.Write("disk.vhdx", append([]byte("vhdxfile"), make([]byte, 1<<20)...))
	check(t, unix.Mkfifo(b.Path("fifo"), 0o644))
	check(t, os.Symlink("loop", b.Path("loop")))
	for name, words := range map[string][]string{
		"none.vhd":   {"no such file"},
		"dir":        {"is a directory"},
		"note.txt":   {"not a VHD image", "text file"},
		"empty.vhd":  {"not a VHD image", "empty"},
		"zeros.vhd":  {"not a VHD image"},
		"random.vhd": {"not a VHD image"},
		"cookie.vhd": {"cookie.vhd: "},
		"disk.vhdx":  {"VHDX", "qemu-img convert"},
		"fifo":       {"FIFO"},
		"loop":       {"too many levels of symbolic links"},
		"/dev/null":  {"character device"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, args := range [][]string{
				{"mount", name, "mnt"}, {"mount", "-r", name, "mnt"}, {"mount", name}, {"mount", "-f", name, "mnt"},
				{"map", name}, {"check", name}, {"snapshot", name, "child.vhd"},
			} {
				began := time.Now()
				refuses(t, b, args, append(words, name)...)
				if took := time.Since(began); took > 30*time.Second {
					t.Errorf("%v took %v", args, took)
				}
			}
		})
	}
}

// TestATruncatedImage at each kind of place.
func TestATruncatedImage(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	data := image(t, b)
	b.Mkdir("mnt")
	b.OK("create", "--type", "fixed", "4M", "fixed.vhd")
	fixed := b.Read("fixed.vhd")
	for name, c := range map[string]struct {
		data  []byte
		words []string
	}{
		"footer":     {data[:511], nil},
		"header":     {data[:1000], nil},
		"BAT":        {data[:1600], nil},
		"block":      {data[:20000], []string{"block", "past the end of the file"}},
		"last block": {data[:len(data)-3<<20], []string{"block", "past the end of the file"}},
		"fixed":      {fixed[:3<<20], []string{"not a VHD image"}},
	} {
		t.Run(name, func(t *testing.T) {
			b.Write("cut.vhd", c.data)
			refuses(t, b, []string{"mount", "cut.vhd", "mnt"}, append(c.words, "cut.vhd")...)
			if r := b.Run("map", "cut.vhd"); r.Code != 1 || strings.Count(r.Stderr, "\n") != 1 {
				t.Errorf("map: %+v", r)
			}
			if r := b.Run("check", "cut.vhd"); r.Code != 3 && r.Code != 1 {
				t.Errorf("check: %+v", r)
			}
		})
	}
}

// TestADamagedImage: the place and the number are named, mount refuses, and
// check finds it with exit code 3.
func TestADamagedImage(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	data := image(t, b)
	b.Mkdir("mnt")
	end := len(data) - 512
	for name, c := range map[string]struct {
		spoil func(d []byte)
		words []string
	}{
		"checksum of both footers":   {func(d []byte) { d[100]++; d[end+100]++ }, []string{"checksum", "0x"}},
		"checksum of the header":     {func(d []byte) { d[headerAt+700]++ }, []string{"dynamic header", "checksum", "0x"}},
		"BAT points outside":         {func(d []byte) { put(d, batAt+9*4, 99999) }, []string{"block 9", "99999"}},
		"BAT points far outside":     {func(d []byte) { put(d, batAt+9*4, 0xFFFFFFFE) }, []string{"block 9", "4294967294"}},
		"BAT points into the header": {func(d []byte) { put(d, batAt+9*4, 1) }, []string{"block 9", "1"}},
		"two blocks in one place":    {func(d []byte) { copy(d[batAt+4:][:4], d[batAt+36:][:4]) }, []string{"block 1", "block 9"}},
		"BAT outside the file":       {func(d []byte) { put(d, tableAt+4, 0x7FFFFE00); mend(d, headerAt, 1024, headerSum) }, []string{"BAT"}},
		"BAT unaligned":              {func(d []byte) { put(d, tableAt+4, 1537); mend(d, headerAt, 1024, headerSum) }, []string{"1537"}},
		"too few entries":            {func(d []byte) { put(d, entriesAt, 31); mend(d, headerAt, 1024, headerSum) }, []string{"31", "32"}},
		"too many entries":           {func(d []byte) { put(d, entriesAt, 0xFFFFFFFF); mend(d, headerAt, 1024, headerSum) }, []string{"4294967295"}},
		"block size zero":            {func(d []byte) { put(d, blockSizeAt, 0); mend(d, headerAt, 1024, headerSum) }, []string{"block size"}},
		"block size no power of 2":   {func(d []byte) { put(d, blockSizeAt, 3<<20); mend(d, headerAt, 1024, headerSum) }, []string{"block size", "3145728"}},
		"block size too large":       {func(d []byte) { put(d, blockSizeAt, 1<<30); mend(d, headerAt, 1024, headerSum) }, []string{"block size", "1073741824"}},
		"header version":             {func(d []byte) { put(d, headerAt+24, 0x00020000); mend(d, headerAt, 1024, headerSum) }, []string{"dynamic header", "version"}},
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := append([]byte{}, data...)
			c.spoil(spoilt)
			b.Write("bad.vhd", spoilt)
			words := append(c.words, "bad.vhd")
			refuses(t, b, []string{"mount", "bad.vhd", "mnt"}, words...)
			r := b.Run("check", "bad.vhd")
			if r.Code != 3 && r.Code != 1 || r.Stdout+r.Stderr == "" {
				t.Errorf("check: %+v", r)
			}
		})
	}
}

// TestADamagedImageIsLeftAsItIs, by check and info too.
func TestADamagedImageIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	data := image(t, b)
	put(data, batAt+9*4, 99999)
	b.Write("bad.vhd", data)
	before := b.Sum("bad.vhd")
	for verb, code := range map[string]int{"check": 3, "info": 0, "map": 1} {
		if r := b.Run(verb, "bad.vhd"); r.Code != code {
			t.Errorf("%s: exit code %d, want %d: %+v", verb, r.Code, code, r)
		}
	}
	if b.Sum("bad.vhd") != before {
		t.Error("the image changed")
	}
}

// TestABadEndFooterIsNoReasonToRefuse: the copy at the front serves.
func TestABadEndFooterIsNoReasonToRefuse(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	data := image(t, b)
	for name, spoil := range map[string]func([]byte) []byte{
		"damaged": func(d []byte) []byte { d[len(d)-400]++; return d },
		"missing": func(d []byte) []byte { return d[:len(d)-512] },
		"short":   func(d []byte) []byte { return append(d[:len(d)-512:len(d)-512], d[len(d)-511:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			file := name + ".vhd"
			b.Write(file, spoil(append([]byte{}, data...)))
			m := b.Mount(file)
			got := make([]byte, 8192)
			_, err := m.Open(os.O_RDONLY).ReadAt(got, 18<<20)
			check(t, err)
			if string(got) != string(harness.Random(1, 8192)) {
				t.Error("block 9 reads as something else")
			}
			b.OK("unmount", "--lazy", m.Point)
		})
	}
}

func TestAnImageInUse(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	image(t, b)
	m := b.Mount("disk.vhd")
	b.Mkdir("mnt")
	holder := "vhdmount (pid " + strconv.Itoa(m.PID()) + ")"
	point := m.Point
	b.OK("list")
	for _, args := range [][]string{{"mount", "disk.vhd", "mnt"}, {"mount", "-r", "disk.vhd"}, {"check", "disk.vhd"}} {
		before := len(b.RunFiles())
		b.Fails(args, "disk.vhd", "in use", holder)
		if now := b.RunFiles(); len(now) != before {
			t.Errorf("%v left %v", args, now)
		}
	}
	if mounts := b.Mounts(); len(mounts) != 1 || mounts[0] != point {
		t.Errorf("mounted: %v", mounts)
	}
}
