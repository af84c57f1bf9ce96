package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// chainFlags say how an image's chain is put together.
func chainFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "parent", Usage: "`FILE` that is the image's parent, in place of what the image says"},
		parentDirFlag(),
		&cli.BoolFlag{Name: "force-parent", DisableDefaultText: true, Usage: "accept a parent with another UUID than the image names"},
		&cli.StringFlag{Name: "size-from", Value: "auto", Usage: "take the disk's size from the `FIELD` geometry or footer, or by the image's creator: auto"},
	}
}

func parentDirFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "parent-dir", Usage: "`DIR` in which a parent may lie, besides the image's own; may be repeated"}
}

// chainOptions reads chainFlags.
func chainOptions(c *cli.Context) (vhd.Options, error) {
	from, err := format.ParseSizeFrom(c.String("size-from"))
	if err != nil {
		return vhd.Options{}, exitcode.Usagef("%s: --size-from %q is none of auto, geometry, footer", c.Command.Name, c.String("size-from"))
	}
	return vhd.Options{
		Parent:      c.String("parent"),
		ParentDirs:  c.StringSlice("parent-dir"),
		ForceParent: c.Bool("force-parent"),
		SizeFrom:    from,
	}, nil
}

// openToLook opens an image to look at it, beside a writer if need be: then a
// warning says that what is shown may be changing.
func openToLook(c *cli.Context, name string) (*vhd.Image, error) {
	o, err := chainOptions(c)
	if err != nil {
		return nil, err
	}
	o.ReadOnly = true
	img, err := vhd.Open(name, o)
	var inUse *storage.InUseError
	if !errors.As(err, &inUse) {
		return img, err
	}
	o.NoLock = true
	if img, err = vhd.Open(name, o); err != nil {
		return nil, fmt.Errorf("%w (read without a lock: %w)", err, inUse)
	}
	warn(c.App.ErrWriter, "%s: %v; what is shown may be changing", name, inUse)
	return img, nil
}
