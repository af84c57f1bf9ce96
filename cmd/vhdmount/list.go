package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
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
		Name:        "list",
		Usage:       "list what you have mounted",
		UsageText:   "vhdmount list [--json]",
		Description: "An entry whose server died is shown as dead; vhdmount unmount clears it.",
		Flags:       []cli.Flag{jsonFlag()},
		Action:      list,
	}
}

// listing is a line of the list.
type listing struct {
	registry.Entry
	State string `json:"state"`
	Error string `json:"error,omitempty"` // why it turned read-only
}

func list(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	dir, err := openRegistry()
	if err != nil {
		return err
	}
	records, readErr := dir.Records()
	listings := []listing{}
	for _, r := range records {
		listings = append(listings, look(c.Context, dir, r))
	}
	if c.Bool("json") {
		return errors.Join(readErr, printJSON(c, listings))
	}
	return errors.Join(readErr, printListings(c.App.Writer, listings))
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
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tPATH\tFRONTEND\tPID\tSTATE\tSINCE")
	for _, l := range listings {
		mode := ""
		if l.ReadOnly && l.State == string(control.Running) {
			mode = ", read-only"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s%s\t%s\n", printable.Text(l.Image), printable.Text(l.Disk), l.Frontend, l.PID, l.State, mode,
			l.Since.Local().Format(time.DateTime))
	}
	return t.Flush()
}

// openRegistry opens this user's runtime directory.
func openRegistry() (*registry.Dir, error) {
	return registry.Open(registry.Locate(os.Getenv, os.Geteuid()))
}
