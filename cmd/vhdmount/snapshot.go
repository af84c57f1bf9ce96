package main

import (
	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/core/vhd"
)

func snapshotVerb() *cli.Command {
	return &cli.Command{
		Name:      "snapshot",
		Usage:     "make a child image that holds what differs from its base",
		UsageText: "vhdmount snapshot [--size SIZE] [--block-size SIZE] [--raw-parent] BASE CHILD",
		Description: "The child is a differencing image: it shows BASE's disk and takes all writes.\n" +
			"BASE must not be written to from then on.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "size", Usage: "`SIZE` of the child's disk (default: that of the base)"},
			&cli.StringFlag{Name: "block-size", Usage: "`SIZE` of the child's blocks (default: that of the base, or 2M)"},
			&cli.BoolFlag{Name: "raw-parent", DisableDefaultText: true, Usage: "BASE is a raw image, not a VHD"},
		},
		Action: snapshot,
	}
}

func snapshot(c *cli.Context) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	o := vhd.SnapshotOptions{RawParent: c.Bool("raw-parent")}
	if text := c.String("size"); text != "" {
		if o.Size, err = diskSize("snapshot", text); err != nil {
			return err
		}
	}
	if o.BlockSize, err = blockSize(c); err != nil {
		return err
	}
	return vhd.Snapshot(args[0], args[1], o)
}
