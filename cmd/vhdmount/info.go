package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/describe"
)

func infoVerb() *cli.Command {
	return &cli.Command{
		Name:      "info",
		Usage:     "print what an image says of itself",
		UsageText: "vhdmount info [--json] [--chain] IMAGE",
		Description: "Every field of the footer and the header, decoded, and how much is allocated.\n" +
			"An image in use is read as it stands; of a damaged one, what can be read is shown.",
		Flags:  append([]cli.Flag{jsonFlag(), &cli.BoolFlag{Name: "chain", DisableDefaultText: true, Usage: "describe the image's parents too"}}, chainFlags()...),
		Action: info,
	}
}

func info(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	img, err := openToLook(c, args[0])
	if err != nil {
		return errors.Join(salvage(c, args[0]), err)
	}
	disk := describe.Image(img, "")
	if !c.Bool("chain") {
		disk.Layers = disk.Layers[:1]
	}
	return errors.Join(printDisk(c, disk), img.Close())
}

// salvage prints what an image that can't be opened still says.
func salvage(c *cli.Context, name string) error {
	disk, ok := describe.Salvage(name)
	if !ok {
		return nil
	}
	return printDisk(c, disk)
}

func printDisk(c *cli.Context, disk describe.Disk) error {
	if c.Bool("json") {
		return printJSON(c, disk)
	}
	return disk.Text(c.App.Writer)
}
