package soak

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// figures are what a process takes of the machine.
type figures struct {
	resident    int // bytes
	descriptors int
	threads     int
}

func (f figures) String() string {
	return fmt.Sprintf("%d MiB resident, %d descriptors, %d threads", f.resident>>20, f.descriptors, f.threads)
}

// figuresOf are a process's now.
func figuresOf(pid int) (figures, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return figures{}, err
	}
	var f figures
	for line := range strings.Lines(string(status)) {
		switch words := strings.Fields(line); words[0] {
		case "VmRSS:":
			f.resident, err = strconv.Atoi(words[1])
			f.resident <<= 10
		case "Threads:":
			f.threads, err = strconv.Atoi(words[1])
		}
		if err != nil {
			return figures{}, err
		}
	}
	open, err := os.ReadDir(dir + "/fd")
	f.descriptors = len(open)
	return f, err
}

// slack is what memory may come and go by, in bytes: a garbage collector's
// rhythm, and the race detector's own.
const slack = 16 << 20

// grown says what has grown beyond a warm process's: in the last third of the
// samples, what is more than a tenth and slack above the peak of the second
// third. The first third is the warming up.
func grown(samples []figures) []string {
	third := len(samples) / 3
	if third == 0 {
		return []string{fmt.Sprintf("%d samples tell nothing", len(samples))}
	}
	peak := func(part []figures, of func(figures) int) int {
		return of(slices.MaxFunc(part, func(a, b figures) int { return of(a) - of(b) }))
	}
	var grown []string
	for _, one := range []struct {
		name  string
		of    func(figures) int
		slack int
	}{
		{"resident bytes", func(f figures) int { return f.resident }, slack},
		{"descriptors", func(f figures) int { return f.descriptors }, 2},
		{"threads", func(f figures) int { return f.threads }, 4},
	} {
		warm, last := peak(samples[third:2*third], one.of), peak(samples[2*third:], one.of)
		if last > warm+warm/10+one.slack {
			grown = append(grown, fmt.Sprintf("%s: %d, then %d", one.name, warm, last))
		}
	}
	return grown
}

func TestGrowthIsSeen(t *testing.T) {
	flat := figures{100 << 20, 40, 12}
	steady := slices.Repeat([]figures{flat}, 9)
	for name, c := range map[string]struct {
		last figures
		want int
	}{
		"flat":        {flat, 0},
		"slack":       {figures{120 << 20, 42, 14}, 0},
		"memory":      {figures{140 << 20, 40, 12}, 1},
		"descriptors": {figures{100 << 20, 60, 12}, 1},
		"threads":     {figures{100 << 20, 40, 40}, 1},
		"all":         {figures{200 << 20, 80, 40}, 3},
	} {
		if got := grown(append(slices.Clone(steady), c.last)); len(got) != c.want {
			t.Errorf("%s: %q, want %d", name, got, c.want)
		}
	}
	if got := grown([]figures{{500 << 20, 90, 90}, {300 << 20, 90, 90}, {200 << 20, 90, 90}, flat, flat, flat}); len(got) != 0 {
		t.Errorf("shrinking: %q", got)
	}
	if got := grown(steady[:2]); len(got) != 1 {
		t.Errorf("two samples: %q", got)
	}
}

func TestFiguresOfThisProcess(t *testing.T) {
	before, err := figuresOf(os.Getpid())
	check(t, err)
	f, err := os.Open(os.DevNull)
	check(t, err)
	defer f.Close()
	after, err := figuresOf(os.Getpid())
	check(t, err)
	if after.descriptors != before.descriptors+1 || before.resident < 1<<20 || before.threads < 1 {
		t.Errorf("%v, and with one more file %v", before, after)
	}
}
