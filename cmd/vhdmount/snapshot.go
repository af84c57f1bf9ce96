package main

import (
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/core/vhd"
)

func snapshotVerb() *cli.Command {
	return &cli.Command{
		Name:      "snapshot",
		Usage:     "make a child image that holds what differs from its base",
		UsageText: "vhdmount snapshot [--live] [--size SIZE] [--block-size SIZE] [--raw-parent] [--parent-dir DIR] BASE CHILD",
		Description: "The child is a differencing image: it shows BASE's disk and takes all writes.\n" +
			"BASE must not be written to from then on. With --live BASE is mounted, named by its image or where it\n" +
			"is mounted: its disk goes on with CHILD, and its users notice a moment's wait.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "live", DisableDefaultText: true, Usage: "BASE is mounted: have its disk go on with CHILD"},
			&cli.StringFlag{Name: "size", Usage: "`SIZE` of the child's disk (default: that of the base)"},
			&cli.StringFlag{Name: "block-size", Usage: "`SIZE` of the child's blocks, a power of two from 4K to 256M (default: that of the base, or 2M)"},
			&cli.BoolFlag{Name: "raw-parent", DisableDefaultText: true, Usage: "BASE is a raw image, not a VHD"},
			parentDirFlag(),
		},
		Action: snapshot,
	}
}

func snapshot(c *cli.Context) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	o := vhd.SnapshotOptions{RawParent: c.Bool("raw-parent"), ParentDirs: c.StringSlice("parent-dir")}
	if text := c.String("size"); text != "" {
		if o.Size, err = diskSize("snapshot", text); err != nil {
			return err
		}
	}
	if o.BlockSize, err = blockSize(c); err != nil {
		return err
	}
	if c.Bool("live") {
		return snapshotLive(c, args[0], args[1], o)
	}
	if err := vhd.Snapshot(args[0], args[1], o); err != nil {
		return err
	}
	if dir, outside := outsideTree(args[0], args[1]); outside {
		warn(c.App.ErrWriter, "%s: its parent lies outside its directory: mount it with --parent-dir %s", args[1], dir)
	}
	return nil
}

// outsideTree is the directory that base is in, and whether that is outside the
// tree of child's, where a parent is looked for without being asked to. Both are there.
func outsideTree(base, child string) (dir string, outside bool) {
	var paths [2]string
	var err error
	for i, name := range []string{base, filepath.Dir(child)} {
		if paths[i], err = filepath.EvalSymlinks(name); err != nil {
			return "", false
		}
		if paths[i], err = filepath.Abs(paths[i]); err != nil {
			return "", false
		}
	}
	rel, err := filepath.Rel(paths[1], paths[0])
	return filepath.Dir(paths[0]), err != nil || !filepath.IsLocal(rel)
}
