package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// What the ratios are to.
const (
	subject   = "vhdmount"
	reference = "qsd"
	rawFile   = "raw"
)

// report is the figures of a run.
type report struct {
	jobs    []job
	peers   []peer
	figures map[cell][]float64 // one a round
}

type cell struct{ job, peer string }

func newReport(jobs []job, peers []peer) *report {
	return &report{jobs: jobs, peers: peers, figures: map[cell][]float64{}}
}

func (r *report) add(j job, p peer, v float64) {
	c := cell{j.name, p.name}
	r.figures[c] = append(r.figures[c], v)
}

// median is the middle of a job's rounds on a peer; false where there is none.
func (r *report) median(job, peer string) (float64, bool) {
	v := slices.Sorted(slices.Values(r.figures[cell{job, peer}]))
	switch n := len(v); {
	case n == 0:
		return 0, false
	case n%2 == 1:
		return v[n/2], true
	default:
		return (v[n/2-1] + v[n/2]) / 2, true
	}
}

// ratio is how many times faster a is than b at job.
func (r *report) ratio(job, a, b string) (float64, bool) {
	va, okA := r.median(job, a)
	vb, okB := r.median(job, b)
	if !okA || !okB || vb == 0 {
		return 0, false
	}
	return va / vb, true
}

// write prints the tables and tells whether a floor was missed.
func (r *report) write(w io.Writer) (missed bool) {
	if len(r.jobs) == 0 {
		return false
	}
	writeTable(w, r.figureRows())
	rows, missed := r.ratioRows()
	fmt.Fprintln(w)
	writeTable(w, rows)
	return missed
}

// figureRows is the table of medians: a row a job, a column a peer.
func (r *report) figureRows() [][]string {
	header := []string{"1 GiB dynamic VHD, median of rounds"}
	for _, p := range r.peers {
		header = append(header, p.title)
	}
	rows := [][]string{header}
	for _, j := range r.jobs {
		row := []string{j.title}
		for _, p := range r.peers {
			text := "-"
			if v, ok := r.median(j.name, p.name); ok {
				text = j.unit.format(v)
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	return rows
}

// ratioRows is the table of what vhdmount does in units of others.
func (r *report) ratioRows() (rows [][]string, missed bool) {
	rows = [][]string{{"vhdmount, times …", "qemu-storage-daemon", "floor", "", "raw file"}}
	for _, j := range r.jobs {
		row := []string{j.title, "-", times(j.floor), "", "-"}
		if v, ok := r.ratio(j.name, subject, reference); ok {
			row[1], row[3] = times(v), "ok"
			if v < j.floor {
				row[3], missed = "MISSED", true
			}
		}
		if v, ok := r.ratio(j.name, subject, rawFile); ok {
			row[4] = times(v)
		}
		rows = append(rows, row)
	}
	return rows, missed
}

// times is a ratio with three digits where there is something to see.
func times(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f×", v)
	case v >= 10:
		return fmt.Sprintf("%.1f×", v)
	default:
		return fmt.Sprintf("%.2f×", v)
	}
}

func writeTable(w io.Writer, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	tw.Flush()
}
