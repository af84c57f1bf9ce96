package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/foreign"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/printable"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/check"
	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/frontend/fuse"
)

// advice is what to do about an error, for those whose own text doesn't say.
// The first entry that applies is taken.
var advice = []struct {
	err  error
	text string
}{
	{storage.ErrInUse, "close it there first"},
	{fuse.ErrMountpoint, "name an empty directory, or none"},
	{errMountOnImage, "name an empty directory, or none"},
	{errMountOnParent, "name an empty directory, or none"},
	{fs.ErrNotExist, "is the name right?"},
	{storage.ErrNotRegular, "name the image file itself"},
	{blockdev.ErrNoSpace, "make room there and try again"},
	{blockdev.ErrReadOnly, "--read-only shows it all the same"},
	{vhd.ErrEncrypted, "decrypt it where it was made"},
	{vhd.ErrCorrupt, "vhdmount check tells more"},
	{format.ErrChecksum, "vhdmount check tells more"},
	{format.ErrBounds, "vhdmount check tells more"},
	{format.ErrField, "vhdmount check tells more"},
	{format.ErrVersion, "vhdmount check tells more"},
}

// advised are errors whose text says what to do.
var advised = []error{
	vhd.ErrParentMissing, vhd.ErrParentMismatch, vhd.ErrParentOutside, vhd.ErrPoisoned, vhd.ErrParentLoop, vhd.ErrTooDeep,
	fuse.ErrNoFuse, fuse.ErrNoFusermount,
}

// message is the one line that tells the user of err: the thing, the place,
// the number, and what to do.
func message(err error) string {
	var done finished
	if errors.As(err, &done) {
		return done.Error()
	}
	line := text(err)
	if foreign, ok := foreignImage(err); ok {
		line = foreign
	} else if todo := whatToDo(err); todo != "" {
		line += " (" + todo + ")"
	}
	return printable.Text(strings.ReplaceAll(line, "\n", "; "))
}

// text is err's own text, without the system call and the second mention of
// the file that an *fs.PathError has.
func text(err error) string {
	var path *fs.PathError
	switch image := innermost(err); {
	case !errors.As(err, &path):
		return err.Error()
	case image != nil && image.Image == path.Path:
		return strings.Replace(err.Error(), path.Error(), path.Err.Error(), 1)
	}
	return strings.Replace(err.Error(), path.Error(), path.Path+": "+path.Err.Error(), 1)
}

// innermost is the failure that names the image which err is about in the end:
// a parent's is within its child's. It is nil if err is no image's.
func innermost(err error) *vhd.ImageError {
	var image *vhd.ImageError
	for errors.As(err, &image) {
		err = image.Err
	}
	return image
}

func whatToDo(err error) string {
	for _, e := range advised {
		if errors.Is(err, e) {
			return ""
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return permissionAdvice(err)
	}
	for _, a := range advice {
		if errors.Is(err, a.err) {
			return a.text
		}
	}
	return ""
}

// permissionAdvice tells apart an image that can be read and one that can't.
func permissionAdvice(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) && path.Op == "open" {
		if f, openErr := os.Open(path.Path); openErr == nil {
			f.Close()
			return "you may read it: try --read-only"
		}
	}
	return fmt.Sprintf("user %d may not", os.Geteuid())
}

// foreignImage recognises a file that is no VHD.
func foreignImage(err error) (string, bool) {
	way, name, ok := notVHD(err)
	if !ok {
		return "", false
	}
	f, openErr := os.Open(name)
	if openErr != nil {
		return "", false
	}
	defer f.Close()
	info, statErr := f.Stat()
	if statErr != nil {
		return "", false
	}
	kind, ok := foreign.Identify(f, info.Size())
	return fmt.Sprintf("%s%s: not a VHD image but %s: %s", way, name, kind.What, kind.Advice), ok
}

// notVHD is the file that err calls none, and what err says before its name:
// the children that led to it.
func notVHD(err error) (way, name string, ok bool) {
	image := innermost(err)
	switch {
	case image != nil && errors.Is(image, vhd.ErrNotVHD):
		way, _, ok = strings.Cut(err.Error(), image.Error())
		return way, image.Image, ok
	case errors.Is(err, check.ErrNotVHD):
		name, _, ok = strings.Cut(err.Error(), ": "+check.ErrNotVHD.Error())
		return "", name, ok
	}
	return "", "", false
}

// warn prints a line that is no failure.
func warn(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "vhdmount: warning: %s\n", printable.Text(fmt.Sprintf(format, args...)))
}
