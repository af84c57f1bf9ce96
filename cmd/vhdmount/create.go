package main

import (
	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func createVerb() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "make a new image",
		UsageText: "vhdmount create [--type fixed|dynamic] [--block-size SIZE] SIZE IMAGE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "type", Value: "dynamic", Usage: "`TYPE` of the image: fixed, or dynamic, which grows with what is written"},
			&cli.StringFlag{Name: "block-size", Usage: "`SIZE` of a dynamic image's blocks, a power of two from 4K to 256M (default: 2M)"},
		},
		Action: create,
	}
}

func create(c *cli.Context) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	var o vhd.CreateOptions
	switch kind := c.String("type"); kind {
	case "fixed":
		o.Type = format.Fixed
	case "dynamic":
		o.Type = format.Dynamic
	default:
		return exitcode.Usagef("create: --type %q is neither fixed nor dynamic (differencing images are made by vhdmount snapshot)", kind)
	}
	if o.Size, err = diskSize("create", args[0]); err != nil {
		return err
	}
	if o.BlockSize, err = blockSize(c); err != nil {
		return err
	}
	if o.Type == format.Fixed && o.BlockSize != 0 {
		return exitcode.Usagef("create: a fixed image has no blocks: leave out --block-size")
	}
	return vhd.Create(args[1], o)
}
