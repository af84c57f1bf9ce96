package vm

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var figures = flag.Bool("figures", false, "measure a blktap disk with fio, beside tapdisk's where that is there (make bench-blktap)")

// rounds is how often each server is measured; they take turns.
const rounds = 3

// TestFigures prints fio's figures of this program and of tapdisk, on one
// processor each, the median of the rounds.
func TestFigures(t *testing.T) {
	if !*figures {
		t.Skip("measures: ask for it with -figures (make bench-blktap)")
	}
	needBlktap(t)
	script := "figures"
	for round := range rounds {
		turn := []string{"ours", "tapdisk"}
		if *tapdisk == "" {
			turn = turn[:1]
		}
		if round%2 == 1 {
			slices.Reverse(turn)
		}
		script += "," + strings.Join(turn, ",")
	}
	m := machine{script: script, scratch: true, cpus: 1, memory: 1024, limit: 30 * time.Minute}
	t.Log("\n" + table(collect(t, m.run(t))))
}

// jobs are what is measured, in the order of the table.
var jobs = []struct{ name, title, unit string }{
	{"randread", "random reads of 4 KiB", "IOPS"},
	{"randwrite", "random writes of 4 KiB", "IOPS"},
	{"allocating", "allocating random writes of 4 KiB", "IOPS"},
	{"seqread", "sequential reads of 128 KiB", "KiB/s"},
}

// collect sorts the lines of the script, "WHO JOB FIGURE", by who and job.
func collect(t *testing.T, lines []string) map[string][]float64 {
	t.Helper()
	all := map[string][]float64{}
	for _, line := range lines {
		who, figure, _ := strings.Cut(line, " ")
		name, number, _ := strings.Cut(figure, " ")
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			t.Fatalf("the guest wrote %q: %v", line, err)
		}
		all[who+" "+name] = append(all[who+" "+name], value)
	}
	return all
}

// table is the medians, and how many times tapdisk's ours are.
func table(all map[string][]float64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-36s %-6s %10s %10s %6s\n", "queue depth 32", "", "vhdmount", "tapdisk", "ratio")
	for _, job := range jobs {
		ours, theirs := median(all["ours "+job.name]), median(all["tapdisk "+job.name])
		fmt.Fprintf(&b, "%-36s %-6s %10.0f", job.title, job.unit, ours)
		if theirs > 0 {
			fmt.Fprintf(&b, " %10.0f %6.2f", theirs, ours/theirs)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// median is the middle one, 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}
