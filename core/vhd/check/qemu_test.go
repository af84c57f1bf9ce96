package check

import (
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
)

var qemu = flag.Bool("qemu", false, "check images made by qemu-img, which must be installed")

// TestImagesByQEMU: what qemu-img makes in each of its settings has no damage,
// and of what vhd-util would refuse only the geometry.
func TestImagesByQEMU(t *testing.T) {
	if !*qemu {
		t.Skip("needs -qemu")
	}
	for _, subformat := range []string{"dynamic", "fixed"} {
		for _, force := range []string{"on", "off"} {
			for _, size := range []string{"512", "34816", "1M", "5000K", "100M", "2G", "200G"} {
				if subformat == "fixed" && size == "200G" {
					continue
				}
				t.Run(fmt.Sprintf("%s/force_size=%s/%s", subformat, force, size), func(t *testing.T) {
					name := filepath.Join(t.TempDir(), "disk.vhd")
					command(t, "qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat="+subformat+",force_size="+force, name, size)
					checkQEMU(t, name)
					for _, at := range []string{"0", "3M", "60M", "40M"} {
						_ = exec.Command("qemu-io", "-f", "vpc", "-c", "write -P 7 "+at+" 512", name).Run() // fails past the end
					}
					checkQEMU(t, name)
				})
			}
		}
	}
}

func checkQEMU(t *testing.T, name string) {
	t.Helper()
	report := run(t, name, Options{Lock: true, Bitmaps: true})
	for _, f := range report.Findings {
		if !(want{Note, "footer", "geometry 65535/16/255 is above the usual one"}).matches(f) {
			t.Errorf("%v", f)
		}
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
