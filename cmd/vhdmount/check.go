package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/printable"
	"github.com/vhdmount/vhdmount/core/vhd/check"
)

func checkVerb() *cli.Command {
	return &cli.Command{
		Name:        "check",
		Usage:       "look for damage in an image's structure",
		UsageText:   "vhdmount check [--json] [--bitmaps] [--parents] IMAGE",
		Description: "Prints a line for each finding and ends with exit code 3 if one of them is damage.\nNothing is written to the image.",
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.BoolFlag{Name: "bitmaps", DisableDefaultText: true, Usage: "read every sector bitmap too, and the data under clear bits"},
			&cli.BoolFlag{Name: "parents", DisableDefaultText: true, Usage: "check the image's parents too"},
			&cli.StringFlag{Name: "parent", Usage: "`FILE` that is the image's parent, in place of what the image says"},
			parentDirFlag(),
		},
		Action: runCheck,
	}
}

// jsonFinding is check.Finding in the command's JSON.
type jsonFinding struct {
	Severity string `json:"severity"`
	Image    string `json:"image"`
	Place    string `json:"place"`
	Message  string `json:"message"`
}

func runCheck(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	report, err := check.Run(args[0], check.Options{
		Lock:       true,
		Bitmaps:    c.Bool("bitmaps"),
		Parents:    c.Bool("parents"),
		Parent:     c.String("parent"),
		ParentDirs: c.StringSlice("parent-dir"),
	})
	if err != nil {
		return err
	}
	damage := 0
	for _, f := range report.Findings {
		if f.Severity == check.Damage {
			damage++
		}
	}
	if c.Bool("json") {
		err = printReportJSON(c, args[0], report)
	} else {
		err = printReport(c, args[0], report, damage)
	}
	if err != nil {
		return err
	}
	if damage > 0 {
		return exitcode.Damagef("%s: damage found (%d of %d findings)", args[0], damage, len(report.Findings))
	}
	return nil
}

func printReport(c *cli.Context, name string, report *check.Report, damage int) error {
	for _, f := range report.Findings {
		if _, err := fmt.Fprintln(c.App.Writer, printable.Text(f.String())); err != nil {
			return err
		}
	}
	if damage > 0 {
		return nil
	}
	_, err := fmt.Fprintf(c.App.Writer, "%s: no damage found\n", printable.Text(name))
	return err
}

func printReportJSON(c *cli.Context, name string, report *check.Report) error {
	out := struct {
		Image    string        `json:"image"`
		Damaged  bool          `json:"damaged"`
		Findings []jsonFinding `json:"findings"`
		Leaked   int64         `json:"leaked_bytes"`
		Blocks   int64         `json:"blocks"`
		Alloc    int64         `json:"allocated_blocks"`
	}{name, report.Damaged(), []jsonFinding{}, report.LeakedBytes, report.Blocks, report.Allocated}
	for _, f := range report.Findings {
		out.Findings = append(out.Findings, jsonFinding{f.Severity.String(), f.Image, f.Place, f.Message})
	}
	return printJSON(c, out)
}
