// Package mountopts reads the words of mount(8)'s -o option.
package mountopts

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// ErrOption is a word that is unknown, or whose value is wrong.
var ErrOption = errors.New("bad mount option")

// Options is what the words ask for. The zero value is what no words ask for.
type Options struct {
	ReadOnly           bool
	AllowOther         bool
	AllowRoot          bool
	DefaultPermissions bool
	UID, GID           *uint32      // nil: the user's own
	Umask              *fs.FileMode // nil: not given
	FSName             string
}

// words without a value.
var words = map[string]func(*Options){
	"ro":                  func(o *Options) { o.ReadOnly = true },
	"rw":                  func(o *Options) { o.ReadOnly = false },
	"allow_other":         func(o *Options) { o.AllowOther = true },
	"allow_root":          func(o *Options) { o.AllowRoot = true },
	"default_permissions": func(o *Options) { o.DefaultPermissions = true },
}

// settings are the words with a value.
var settings = map[string]func(*Options, string) error{
	"uid":    func(o *Options, v string) (err error) { o.UID, err = id(v); return err },
	"gid":    func(o *Options, v string) (err error) { o.GID, err = id(v); return err },
	"umask":  func(o *Options, v string) (err error) { o.Umask, err = mask(v); return err },
	"fsname": func(o *Options, v string) error { o.FSName = v; return nil },
}

// ignored are words for mount(8) itself and for /etc/fstab, and those about
// what a disk's file doesn't have: times, device nodes, programs.
var ignored = map[string]bool{
	"defaults": true, "auto": true, "noauto": true, "nofail": true, "_netdev": true,
	"user": true, "nouser": true, "users": true, "owner": true, "group": true,
	"exec": true, "noexec": true, "suid": true, "nosuid": true, "dev": true, "nodev": true,
	"atime": true, "noatime": true, "diratime": true, "nodiratime": true, "relatime": true, "norelatime": true,
}

// Parse reads the values of every -o given, each a list with commas; a comma
// or backslash within a value has a backslash before it. A later word overrides
// an earlier one. The errors wrap ErrOption.
func Parse(lists ...string) (Options, error) {
	var o Options
	for _, list := range lists {
		for _, word := range split(list) {
			if err := o.set(word); err != nil {
				return Options{}, err
			}
		}
	}
	if o.AllowOther && o.AllowRoot {
		return Options{}, fmt.Errorf("%w: allow_other and allow_root exclude each other", ErrOption)
	}
	return o, nil
}

// FilesOnly is the first word given that is about files and who may see them,
// and so means nothing to a disk that is shown as a block device; empty if there
// is none.
func (o *Options) FilesOnly() string {
	for _, w := range []struct {
		given bool
		word  string
	}{
		{o.AllowOther, "allow_other"},
		{o.AllowRoot, "allow_root"},
		{o.DefaultPermissions, "default_permissions"},
		{o.UID != nil, "uid"},
		{o.GID != nil, "gid"},
		{o.Umask != nil, "umask"},
		{o.FSName != "", "fsname"},
	} {
		if w.given {
			return w.word
		}
	}
	return ""
}

func (o *Options) set(word string) error {
	name, value, hasValue := strings.Cut(word, "=")
	apply, isSetting := settings[name]
	switch {
	case word == "" || ignored[word] || name == "comment" || strings.HasPrefix(name, "x-"):
		return nil
	case words[word] != nil:
		words[word](o)
		return nil
	case !isSetting:
		return fmt.Errorf("%w: unknown word %q", ErrOption, word)
	case !hasValue || value == "":
		return fmt.Errorf("%w: %s needs a value (%s=…)", ErrOption, name, name)
	}
	if err := apply(o, value); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrOption, word, err)
	}
	return nil
}

// split parts a list at its commas.
func split(list string) []string {
	var out []string
	var word strings.Builder
	escaped := false
	for _, r := range list {
		switch {
		case !escaped && r == '\\':
			escaped = true
			continue
		case !escaped && r == ',':
			out = append(out, word.String())
			word.Reset()
		default:
			word.WriteRune(r)
		}
		escaped = false
	}
	return append(out, word.String())
}

func id(s string) (*uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 { // all ones means "no such user" to the kernel
		return nil, errors.New("not the number of a user or group")
	}
	v := uint32(n)
	return &v, nil
}

func mask(s string) (*fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return nil, errors.New("not an octal number up to 777")
	}
	return new(fs.FileMode(n)), nil
}
