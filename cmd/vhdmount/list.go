package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/mountinfo"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/printable"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
)

// statusTimeout is how long list waits for one server.
const statusTimeout = 2 * time.Second

// States of a mount, beside those that its server reports.
const (
	stateDead   = "dead"          // the server died; unmount clears it
	stateSilent = "not answering" // it lives, and did not answer in time
)

func listVerb() *cli.Command {
	return &cli.Command{
		Name:      "list",
		Usage:     "list what you have mounted",
		UsageText: "vhdmount list [--json]",
		Description: "States: running; closing, hidden but still open somewhere; paused; failing, where the last flush\n" +
			"failed, and what was written may not get to the disk; read-only after an error, for good; not\n" +
			"answering. A mount whose server died is dead, though it died before the mount was entered;\n" +
			"vhdmount unmount clears it. The last column, or \"error\" in JSON, says what is wrong.",
		Flags:  []cli.Flag{jsonFlag()},
		Action: list,
	}
}

// listing is a line of the list.
type listing struct {
	registry.Entry
	State string `json:"state"`
	Error string `json:"error,omitempty"` // why it isn't as it should be
}

func list(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	dir, err := openRegistry()
	if err != nil {
		return err
	}
	// Before the records: a mount that is entered meanwhile is no stray.
	mounts, tableErr := mountinfo.All()
	records, readErr := dir.Records()
	listings := lookAtAll(c.Context, dir, records)
	listings = append(listings, deadStrays(strays(worldOf(dir.Path(), os.Getenv), mounts, records))...)
	err = errors.Join(tableErr, readErr)
	if c.Bool("json") {
		return errors.Join(err, printJSON(c, listings))
	}
	return errors.Join(err, printListings(c.App.Writer, listings))
}

// lookAtAll looks at all mounts at the same time: one whose server is stopped
// costs its timeout, and several no more.
func lookAtAll(ctx context.Context, dir *registry.Dir, records []registry.Record) []listing {
	listings := make([]listing, len(records))
	var looks sync.WaitGroup
	for i, r := range records {
		looks.Go(func() { listings[i] = look(ctx, dir, r) })
	}
	looks.Wait()
	return listings
}

// look asks a mount's server how it is.
func look(ctx context.Context, dir *registry.Dir, r registry.Record) listing {
	l := listing{Entry: r.Entry, State: stateDead}
	if !r.Alive {
		return l
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	response, err := control.Call(ctx, dir.Socket(r.Name), control.Request{Op: control.Status})
	if err != nil {
		l.State = stateSilent
		return l
	}
	l.State, l.Error = string(response.State), response.Error
	return l
}

func printListings(w io.Writer, listings []listing) error {
	if len(listings) == 0 {
		return nil
	}
	failed := slices.ContainsFunc(listings, func(l listing) bool { return l.Error != "" })
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(t, "IMAGE\tPATH\tFRONTEND\tPID\tSTATE\tSINCE")
	if failed {
		fmt.Fprint(t, "\tERROR")
	}
	fmt.Fprintln(t)
	for _, l := range listings {
		fmt.Fprint(t, strings.Join(l.columns(), "\t"))
		if failed {
			fmt.Fprint(t, "\t", printable.Text(strings.ReplaceAll(l.Error, "\n", "; ")))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// columns are the words for a person, but for the error. What is not known of a
// stray is a dash.
func (l listing) columns() []string {
	pid, since, state := "-", "-", l.State
	if l.PID != 0 {
		pid = strconv.Itoa(l.PID)
	}
	if !l.Since.IsZero() {
		since = l.Since.Local().Format(time.DateTime)
	}
	if l.ReadOnly && l.State == string(control.Running) {
		state += ", read-only"
	}
	return []string{printable.Text(l.Image), printable.Text(cmp.Or(l.Disk, l.Mountpoint)), l.Frontend, pid, state, since}
}

// openRegistry opens this user's runtime directory.
func openRegistry() (*registry.Dir, error) {
	return registry.Open(registry.Locate(os.Getenv, os.Geteuid()))
}
