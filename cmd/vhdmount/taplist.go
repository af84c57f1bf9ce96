package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/printable"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
)

// tapRow is a line of tap list: a disk, a tapdisk that has none, or a minor
// that no tapdisk has. What it hasn't is nil or empty.
type tapRow struct {
	PID   *int          `json:"pid,omitempty"`
	Minor *int          `json:"minor,omitempty"`
	State *tapctl.State `json:"state,omitempty"`
	Args  string        `json:"args,omitempty"`
}

func (t *tapTool) list(c *cli.Context) error {
	keep, err := rowFilter(c)
	if err != nil {
		return err
	}
	rows, err := t.rows(c)
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(rows, func(r tapRow) bool { return !keep(r) })
	switch {
	case c.Bool("json"):
		return printJSON(c, append([]tapRow{}, rows...))
	case t.terminal():
		return printRows(c.App.Writer, rows, tapRow.columns)
	}
	return printRows(c.App.Writer, rows, tapRow.words)
}

// rows are the lines of the list: those of one tapdisk with --pid, else all,
// and the minors that are left.
func (t *tapTool) rows(c *cli.Context) ([]tapRow, error) {
	if c.IsSet("pid") {
		pid, err := pidOf(c)
		if err != nil {
			return nil, err
		}
		if _, err := t.dir.PID(c.Context, pid); err != nil {
			return nil, nil // as tap-ctl has it: what isn't there isn't listed
		}
		return t.rowsOf(c.Context, pid), nil
	}
	pids, err := t.dir.Tapdisks(c.Context)
	if err != nil {
		return nil, err
	}
	orphans, err := t.allocated()
	if err != nil {
		return nil, err
	}
	var rows []tapRow
	for _, pid := range pids {
		for _, row := range t.rowsOf(c.Context, pid) {
			rows = append(rows, row)
			if row.Minor != nil {
				orphans = slices.DeleteFunc(orphans, func(minor int) bool { return minor == *row.Minor })
			}
		}
	}
	for _, minor := range orphans {
		rows = append(rows, tapRow{Minor: &minor})
	}
	return rows, nil
}

// rowsOf are a tapdisk's disks. One that has none, or doesn't say, is a line of
// its own.
func (t *tapTool) rowsOf(ctx context.Context, pid int) []tapRow {
	entries, err := t.dir.List(ctx, pid)
	if err != nil || len(entries) == 0 {
		return []tapRow{{PID: &pid}}
	}
	var rows []tapRow
	for _, e := range entries {
		row := tapRow{PID: &pid, State: &e.State, Args: e.Path}
		if e.Minor >= 0 {
			row.Minor = &e.Minor
		}
		rows = append(rows, row)
	}
	return rows
}

// rowFilter is what the flags ask for.
func rowFilter(c *cli.Context) (keep func(tapRow) bool, err error) {
	minor := -1
	if c.IsSet("minor") {
		n, err := minorOf(c, "minor")
		if err != nil {
			return nil, err
		}
		minor = int(n)
	}
	return func(r tapRow) bool {
		driver, name, _ := strings.Cut(r.Args, ":")
		return (minor < 0 || r.Minor != nil && *r.Minor == minor) &&
			(!c.IsSet("driver") || r.Args != "" && driver == c.String("driver")) &&
			(!c.IsSet("file") || r.Args != "" && name == c.String("file"))
	}, nil
}

// words is a line for a program.
func (r tapRow) words() string {
	var words []string
	if r.PID != nil {
		words = append(words, fmt.Sprintf("pid=%d", *r.PID))
	}
	if r.Minor != nil {
		words = append(words, fmt.Sprintf("minor=%d", *r.Minor))
	}
	if r.State != nil {
		words = append(words, "state="+stateText(*r.State))
	}
	if r.Args != "" {
		words = append(words, "args="+r.Args)
	}
	return strings.Join(words, " ")
}

// columns is a line for people.
func (r tapRow) columns() string {
	pid, minor, state := "-", "-", "-"
	if r.PID != nil {
		pid = strconv.Itoa(*r.PID)
	}
	if r.Minor != nil {
		minor = strconv.Itoa(*r.Minor)
	}
	if r.State != nil {
		state = stateText(*r.State)
	}
	driver, name, _ := strings.Cut(r.Args, ":")
	if r.Args == "" {
		driver, name = "-", "-"
	}
	return fmt.Sprintf("%8s %4s %4s %10s %s", pid, minor, state, driver, name)
}

// stateText is a state as C's %#x prints it, which has no prefix before 0.
func stateText(s tapctl.State) string {
	if s == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", uint32(s))
}

func printRows(w io.Writer, rows []tapRow, line func(tapRow) string) error {
	for _, r := range rows {
		if _, err := fmt.Fprintln(w, printable.Text(line(r))); err != nil {
			return err
		}
	}
	return nil
}

// allocated are the minors that the module has given out, in order; none where
// there is no module.
func (t *tapTool) allocated() ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(t.sys, "class/blktap2"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("minors: %w", err)
	}
	var minors []int
	for _, e := range entries {
		name := strings.TrimPrefix(e.Name(), "blktap!") // before the name of XenServer's
		if n, err := strconv.Atoi(strings.TrimPrefix(name, "blktap")); err == nil && n >= 0 {
			minors = append(minors, n)
		}
	}
	slices.Sort(minors)
	return minors, nil
}

func (t *tapTool) minors(c *cli.Context) error {
	minors, err := t.minorsOf(c)
	if err != nil {
		return err
	}
	for _, minor := range minors {
		if _, err := fmt.Fprintln(c.App.Writer, minor); err != nil {
			return err
		}
	}
	return nil
}

// minorsOf are the minors of the tapdisk that --pid names, or all.
func (t *tapTool) minorsOf(c *cli.Context) ([]int, error) {
	if !c.IsSet("pid") {
		if err := t.available(); err != nil {
			return nil, err
		}
		return t.allocated()
	}
	pid, err := pidOf(c)
	if err != nil {
		return nil, err
	}
	entries, err := t.dir.List(c.Context, pid)
	var minors []int
	for _, e := range entries {
		if e.Minor >= 0 {
			minors = append(minors, e.Minor)
		}
	}
	slices.Sort(minors)
	return minors, err
}

var errNoMajor = errors.New("has no tapdev")

// major looks the block devices up in /proc/devices, which has a line
// "253 tapdev" for them.
func (t *tapTool) major(c *cli.Context) error {
	f, err := os.Open(filepath.Join(t.proc, "devices"))
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if major, name, _ := strings.Cut(strings.TrimSpace(lines.Text()), " "); name == "tapdev" {
			_, err := fmt.Fprintln(c.App.Writer, major)
			return err
		}
	}
	return fmt.Errorf("%s %w: %w", f.Name(), errNoMajor, unix.ENODEV)
}

// check says ok, or fails with what is missing.
func (t *tapTool) check(c *cli.Context) error {
	if err := t.available(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.App.Writer, "ok")
	return err
}
